"""`pixloc evaluate-dataset`: run the public benchmarks, from their files to their table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.errors import ConfigError

if TYPE_CHECKING:
    from pixloc_ros.evaluation.datasets.protocol import DatasetFiles


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Files of a benchmark, besides its folder."""

    hloc: Annotated[
        Path | None, typer.Option(help="outputs of hloc, with retrieval lists by scene")
    ] = None
    model: Annotated[
        str, typer.Option(help="COLMAP model of the references; {scene} stands for the scene")
    ] = ""
    pairs: Annotated[str, typer.Option(help="retrieval list; {scene} stands for the scene")] = ""
    descriptors: Annotated[
        list[str] | None, typer.Option(help="HDF5 with global descriptors; repeatable")
    ] = None
    ground_truth: Annotated[
        Path | None, typer.Option(help="7scenes: folder pgt/sfm/7scenes or pgt/dslam/7scenes")
    ] = None
    depth: Annotated[
        Path | None,
        typer.Option(help="7scenes: folder of rendered depth images, 7scenes_heads/..."),
    ] = None
    rig: Annotated[
        bool, typer.Option("--rig", help="robotcar: also use the left and the right camera")
    ] = False

    def files(self, root: Path) -> DatasetFiles:
        """Return them with the folder of the benchmark."""
        from pixloc_ros.evaluation.datasets.protocol import DatasetFiles

        return DatasetFiles(
            root=root,
            hloc=self.hloc,
            model=self.model,
            pairs=self.pairs,
            descriptors=tuple(self.descriptors or ()),
            ground_truth=self.ground_truth,
            depth=self.depth,
            rig=self.rig,
        )


@option_groups
def evaluate_dataset(
    name: Annotated[
        str,
        typer.Argument(help="cambridge, 7scenes, aachen, aachen-v1.1, robotcar, cmu or 4seasons"),
    ],
    root: Annotated[Path, typer.Option(help="folder of the downloaded dataset")],
    output: Annotated[Path, typer.Option(help="folder for maps, results and the submission")],
    scene: Annotated[
        list[str] | None,
        typer.Option(help="one of its scenes, repeatable; default: all that are present"),
    ] = None,
    *,
    files: FileOptions,
    estimates: Annotated[
        str,
        typer.Option(help="do not localize, but score these poses; {scene} stands for the scene"),
    ] = "",
    published: Annotated[
        Path | None,
        typer.Option(
            help="run the published method, without a map, with this file of config/paper"
        ),
    ] = None,
    inliers: Annotated[
        str,
        typer.Option(
            help="with --published: refine the poses in hloc's log; {scene} stands for the scene"
        ),
    ] = "",
    image_pyramid: Annotated[
        str,
        typer.Option(
            help="fractions 1/N of the image size, e.g. 4,1: aligned in turn, each on its own map"
        ),
    ] = "1",
    limit: Annotated[
        int, typer.Option(min=0, help="localize only this many queries per scene; 0: all")
    ] = 0,
    settings: SettingsOptions,
    workers: Annotated[int, typer.Option(min=1, help="number of processes that localize")] = 1,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="address of a Ray cluster that localizes instead")
    ] = "",
) -> None:
    """Localize the queries of a public benchmark; score the poses or write the submission.

    An interrupted run continues when it is started again.

    Example: pixloc evaluate-dataset cambridge --root Cambridge --scene ShopFacade --output results
    """
    # Imported here because torch and SciPy take seconds.
    from pixloc_ros.cli.dataset_runs import GivenPoses, MapRun, PublishedRun, SceneRun
    from pixloc_ros.common.parallel import Workers
    from pixloc_ros.evaluation.datasets import catalogue, report

    located = files.files(root)
    dataset = catalogue.open_dataset(name, located)
    if published and (settings.config or settings.given or files.rig or image_pyramid != "1"):
        raise ConfigError("--published has all settings in its file: leave out the others")
    pyramid, pool = parse_pyramid(image_pyramid), Workers(workers, ray)
    run: SceneRun
    if estimates:
        run = GivenPoses(estimates)
    elif published:
        run = PublishedRun(
            dataset=name,
            files=located,
            config=published,
            output=output,
            device=settings.device,
            inliers=inliers,
            workers=pool,
        )
    else:
        run = MapRun(
            dataset=dataset, output=output, settings=settings, image_pyramid=pyramid, workers=pool
        )
    results = []
    for chosen in catalogue.chosen_scenes(dataset, scene or []):
        loaded = dataset.load(chosen)
        results.append(run.localize(replace(loaded, queries=loaded.queries[: limit or None])))
    found = report.evaluate(dataset, results, run.rows)
    submissions = report.write(output, dataset, results, found)
    console = Console()
    console.print(found.table())
    for path in submissions:
        console.print(f"submission: {path}", markup=False, soft_wrap=True)
    console.print(f"results: {output}", markup=False, soft_wrap=True)


def parse_pyramid(text: str) -> tuple[int, ...]:
    """Return the numbers of `4,1`. Raises ConfigError unless they decrease to 1."""
    words = text.split(",")
    parts = tuple(int(word) for word in words if word.strip().isdecimal())
    falling = all(a > b for a, b in pairwise(parts))
    if len(parts) < len(words) or not falling or parts[-1] != 1:
        raise ConfigError(f"--image-pyramid {text}: give parts that fall to 1, as 4,1")
    return parts
