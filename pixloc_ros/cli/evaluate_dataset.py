"""`pixloc evaluate-dataset`: run the public benchmarks, from their files to their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import ConfigOption, DeviceOption, SetOption, parse_setting

if TYPE_CHECKING:
    from pixloc_ros.common.parallel import Workers
    from pixloc_ros.config import Config
    from pixloc_ros.evaluation.datasets.protocol import Dataset, DatasetFiles, Scene
    from pixloc_ros.evaluation.datasets.report import SceneResult
    from pixloc_ros.evaluation.frames import FrameResult
    from pixloc_ros.geometry.se3 import Matrix
    from pixloc_ros.maps.build.builder import BuildContext, BuildOptions
    from pixloc_ros.maps.files.colmap import ColmapModel
    from pixloc_ros.maps.map import Map


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
    hloc: Annotated[
        Path | None, typer.Option(help="outputs of hloc, with retrieval lists by scene")
    ] = None,
    model: Annotated[
        str, typer.Option(help="COLMAP model of the references; {scene} stands for the scene")
    ] = "",
    pairs: Annotated[str, typer.Option(help="retrieval list; {scene} stands for the scene")] = "",
    descriptors: Annotated[
        list[str] | None, typer.Option(help="HDF5 with global descriptors; repeatable")
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="7scenes: folder pgt/sfm/7scenes or pgt/dslam/7scenes")
    ] = None,
    depth: Annotated[
        Path | None,
        typer.Option(help="7scenes: folder of rendered depth images, 7scenes_heads/..."),
    ] = None,
    rig: Annotated[
        bool, typer.Option("--rig", help="robotcar: also use the left and the right camera")
    ] = False,
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
    config: ConfigOption = None,
    settings: SetOption = None,
    device: DeviceOption = None,
    workers: Annotated[int, typer.Option(min=1, help="number of processes that localize")] = 1,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="address of a Ray cluster that localizes instead")
    ] = "",
) -> None:
    """Localize the queries of a public benchmark; score the poses or write the submission.

    An interrupted run continues when it is started again.

    Example: pixloc evaluate-dataset cambridge --root Cambridge --scene ShopFacade --output results
    """
    from dataclasses import replace

    from pixloc_ros.common.parallel import Workers
    from pixloc_ros.errors import ConfigError
    from pixloc_ros.evaluation.datasets import catalogue, report
    from pixloc_ros.evaluation.datasets.protocol import DatasetFiles

    files = DatasetFiles(
        root, hloc, model, pairs, tuple(descriptors or ()), ground_truth, depth, rig
    )
    dataset = catalogue.open_dataset(name, files)
    if published and (config or settings or rig or image_pyramid != "1"):
        raise ConfigError("--published has all settings in its file: leave out the others")
    pool = Workers(workers, ray)
    ours = MapRun(
        dataset, output, config, settings or [], device, parse_pyramid(image_pyramid), pool
    )
    theirs = PublishedRun(name, files, published, output, device, inliers, pool)
    results = []
    for one in catalogue.chosen_scenes(dataset, scene or []):
        loaded = dataset.load(one)
        if limit:
            loaded = replace(loaded, queries=loaded.queries[:limit])
        if estimates:
            results.append(score_given(loaded, estimates))
        else:
            results.append(theirs.localize(loaded) if published else ours.localize(loaded))
    rows: tuple[str, ...] = (report.ACCEPTED, report.ANSWERED)
    if estimates:
        rows = (Path(estimates).stem,)
    elif published:
        rows = report.PUBLISHED_ROWS
    found = report.evaluate(dataset, results, rows)
    submissions = report.write(output, dataset, results, found)
    console = Console()
    console.print(found.table())
    for path in submissions:
        console.print(f"submission: {path}", markup=False, soft_wrap=True)
    console.print(f"results: {output}", markup=False, soft_wrap=True)


def parse_pyramid(text: str) -> tuple[int, ...]:
    """Return the numbers of `4,1`. Raises ConfigError unless they decrease to 1."""
    from pixloc_ros.errors import ConfigError

    words = text.split(",")
    parts = tuple(int(word) for word in words if word.strip().isdecimal())
    falling = all(a > b for a, b in pairwise(parts))
    if len(parts) < len(words) or not falling or parts[-1] != 1:
        raise ConfigError(f"--image-pyramid {text}: give parts that fall to 1, as 4,1")
    return parts


def score_given(scene: Scene, estimates: str) -> SceneResult:
    """Read poses that another system has estimated; `{scene}` stands for the scene's name."""
    from pixloc_ros.evaluation.datasets import pose_lists
    from pixloc_ros.evaluation.datasets.report import SceneResult

    path = Path(estimates.replace("{scene}", scene.name))
    names = [query.name for query in scene.queries]
    poses = pose_lists.by_query(path, pose_lists.read_poses(path), names)
    return SceneResult(scene, poses, poses)


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """Runs the published method on the scenes of a benchmark."""

    dataset: str
    files: DatasetFiles
    config: Path | None
    output: Path
    device: str | None
    inliers: str
    workers: Workers

    def localize(self, scene: Scene) -> SceneResult:
        """Localize the queries of a scene by its references, or refine hloc's poses."""
        import numpy as np

        from pixloc_ros.config.published import load_published
        from pixloc_ros.evaluation.datasets.localization import localize_scene
        from pixloc_ros.evaluation.datasets.published_method import PublishedRecipe

        assert self.config is not None
        config = load_published(self.config, self.device).model_dump_json()
        log = Path(self.inliers.replace("{scene}", scene.name)) if self.inliers else None
        recipe = PublishedRecipe(self.dataset, self.files, scene.name, config, log)
        settings = recipe.settings(scene.retrieval)
        folder = self.output / "scenes" / scene.name
        folder.mkdir(parents=True, exist_ok=True)
        found = localize_scene(scene, recipe, None, folder, settings, self.workers, track)
        return _result(scene, folder, found, np.eye(4))


@dataclass(frozen=True, slots=True)
class MapRun:
    """Runs this package's localizer on the scenes of a benchmark."""

    dataset: Dataset
    output: Path
    config: Path | None
    settings: list[str]
    device: str | None
    image_pyramid: tuple[int, ...]
    workers: Workers

    def localize(self, scene: Scene) -> SceneResult:
        """Build or load the map of a scene, and localize its queries on it."""
        from pixloc_ros.evaluation.datasets import localization
        from pixloc_ros.priors.file_priors import map_from_world

        folder = self.output / "scenes" / scene.name
        folder.mkdir(parents=True, exist_ok=True)
        configs = [self._config(scene, part) for part in self.image_pyramid]
        maps = [_open_map(scene, config) for config in configs]
        config, map_ = configs[-1], maps[-1]
        names = [query.name for query in scene.queries]
        found = localization.localize_scene(
            scene,
            localization.MapRecipe(tuple(each.model_dump_json() for each in configs)),
            localization.global_prior(scene.retrieval, map_, names, config),
            folder,
            localization.map_settings(maps, config, scene.retrieval),
            self.workers,
            track,
        )
        return _result(scene, folder, found, map_from_world(map_))

    def _config(self, scene: Scene, part: int) -> Config:
        """Return the settings from dataset, file and --set, for one fraction of the image size."""
        from pixloc_ros import config as configuration
        from pixloc_ros.features.pyramid import MAX_SIDE_PX

        given = dict(parse_setting(setting) for setting in self.settings)
        name = scene.map_name if part == 1 else f"{scene.map_name}_{part}"
        given["map"] = str((self.output / "maps" / name).absolute())
        if self.device is not None:
            given["device"] = self.device
        if self.config is None:
            config = configuration.from_flat({**self.dataset.settings, **given})
        else:
            config = configuration.load(self.config, given)
        if part == 1:
            return config
        side_px = (config.features.max_side_px or MAX_SIDE_PX) // part
        features = config.features.model_copy(update={"max_side_px": side_px})
        return config.model_copy(update={"features": features})


def _result(
    scene: Scene, folder: Path, found: Sequence[FrameResult], T_map_world: Matrix
) -> SceneResult:
    """Collect the poses of a scene's queries, and write them to its folder."""
    from pixloc_ros.evaluation.datasets import localization
    from pixloc_ros.evaluation.datasets.report import SceneResult
    from pixloc_ros.geometry.trajectory import write_poses

    accepted = localization.poses_of(found, T_map_world)
    answered = localization.poses_with_fallback(found, T_map_world)
    write_poses(folder / "poses.txt", accepted)
    write_poses(folder / "poses_with_fallback.txt", answered)
    return SceneResult(scene, accepted, answered)


def _open_map(scene: Scene, config: Config) -> Map:
    """Open the map of a scene; build it if there is none yet."""
    from pixloc_ros.features.pyramid import MAX_SIDE_PX, FeatureExtractor
    from pixloc_ros.maps.build.builder import build_map
    from pixloc_ros.maps.map import Map

    folder = Path(config.map)
    if folder.is_dir():
        return Map.load(folder, tiles=config.tiles)
    folder.parent.mkdir(parents=True, exist_ok=True)
    side_px = config.features.max_side_px or MAX_SIDE_PX
    extractor = FeatureExtractor(config.features.weights, config.device, side_px)
    source = SceneSource(scene)
    return build_map(source, folder, extractor=extractor, progress=track, report=_report)


def _report(line: str) -> None:
    typer.echo(line, err=True)


@dataclass(frozen=True, slots=True)
class SceneSource:
    """Source of a scene's map: its model, or posed images without points."""

    scene: Scene

    @property
    def images(self) -> Path:
        """Folder that the references' names are relative to."""
        return self.scene.reference_images

    def model(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, BuildOptions]:
        """Read the references; triangulate points if they come without any."""
        from pixloc_ros.geometry import se3
        from pixloc_ros.maps.build.triangulation import triangulate
        from pixloc_ros.maps.files.colmap import ColmapModel
        from pixloc_ros.maps.files.posed_images import PosedImage

        references = self.scene.references()
        if isinstance(references, ColmapModel):
            return references, options
        posed = [
            PosedImage(r.name, self.images / r.name, r.camera, se3.inverse(r.T_cam_world))
            for r in references
        ]
        model, report = triangulate(posed, context.progress, context.work)
        context.report(str(report))
        return model, options
