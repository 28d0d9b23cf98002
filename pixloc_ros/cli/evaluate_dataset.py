"""`pixloc evaluate-dataset`: the public benchmarks, from their files to their table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pixloc_ros.cli.progress import track
from pixloc_ros.cli.replay import ConfigOption, DeviceOption, SetOption, parse_setting

if TYPE_CHECKING:
    from pixloc_ros.common.parallel import Workers
    from pixloc_ros.config import Config
    from pixloc_ros.evaluation.datasets.protocol import Dataset, Scene
    from pixloc_ros.evaluation.datasets.report import SceneResult
    from pixloc_ros.maps.build.builder import BuildContext, BuildOptions
    from pixloc_ros.maps.files.colmap import ColmapModel
    from pixloc_ros.maps.map import Map


def evaluate_dataset(
    name: Annotated[
        str,
        typer.Argument(help="cambridge, 7scenes, aachen, aachen-v1.1, robotcar, cmu or 4seasons"),
    ],
    root: Annotated[Path, typer.Option(help="folder of the dataset, as it was downloaded")],
    output: Annotated[Path, typer.Option(help="folder for maps, results and the submission")],
    scene: Annotated[
        list[str] | None, typer.Option(help="one of its scenes, repeatable; default: all there are")
    ] = None,
    hloc: Annotated[
        Path | None, typer.Option(help="outputs of hloc, with retrieval lists by scene")
    ] = None,
    model: Annotated[
        str, typer.Option(help="COLMAP model of the references; {scene} stands for the scene")
    ] = "",
    pairs: Annotated[str, typer.Option(help="retrieval list; {scene} as above")] = "",
    descriptors: Annotated[
        list[str] | None, typer.Option(help="HDF5 with global descriptors; repeatable")
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="7scenes: folder pgt/sfm/7scenes or pgt/dslam/7scenes")
    ] = None,
    depth: Annotated[
        Path | None,
        typer.Option(help="7scenes: folder of rendered depth, 7scenes_heads/..."),
    ] = None,
    estimates: Annotated[
        str, typer.Option(help="score these poses instead; {scene} stands for the scene")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="only so many queries per scene; 0: all")] = 0,
    config: ConfigOption = None,
    settings: SetOption = None,
    device: DeviceOption = None,
    workers: Annotated[int, typer.Option(min=1, help="processes that localize")] = 1,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="of a Ray cluster that localizes instead")
    ] = "",
) -> None:
    """Localize the queries of a public benchmark, and score them or write the submission.

    An interrupted run goes on where it was when it is started again.

    Example: pixloc evaluate-dataset cambridge --root Cambridge --scene ShopFacade --output results
    """
    from dataclasses import replace

    from pixloc_ros.common.parallel import Workers
    from pixloc_ros.evaluation.datasets import catalogue, report
    from pixloc_ros.evaluation.datasets.protocol import DatasetFiles

    files = DatasetFiles(root, hloc, model, pairs, tuple(descriptors or ()), ground_truth, depth)
    dataset = catalogue.open_dataset(name, files)
    run = BenchmarkRun(
        dataset, output, config, settings or [], device, Workers(workers, ray), estimates
    )
    results = []
    for one in catalogue.chosen_scenes(dataset, scene or []):
        loaded = dataset.load(one)
        if limit:
            loaded = replace(loaded, queries=loaded.queries[:limit])
        results.append(run.score_given(loaded) if estimates else run.localize(loaded))
    rows = (Path(estimates).stem,) if estimates else (report.ACCEPTED, report.ANSWERED)
    found = report.evaluate(dataset, results, rows)
    submissions = report.write(output, dataset, results, found)
    console = Console()
    console.print(found.table())
    for path in submissions:
        console.print(f"submission: {path}", markup=False, soft_wrap=True)
    console.print(f"results: {output}", markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """How the scenes of a benchmark become results."""

    dataset: Dataset
    output: Path
    config: Path | None
    settings: list[str]
    device: str | None
    workers: Workers
    estimates: str

    def score_given(self, scene: Scene) -> SceneResult:
        """Results of poses that something else has estimated."""
        from pixloc_ros.evaluation.datasets import pose_lists
        from pixloc_ros.evaluation.datasets.report import SceneResult

        path = Path(self.estimates.replace("{scene}", scene.name))
        names = [query.name for query in scene.queries]
        poses = pose_lists.by_query(path, pose_lists.read_poses(path), names)
        return SceneResult(scene, poses, poses)

    def localize(self, scene: Scene) -> SceneResult:
        """Build or load the map of a scene, and localize its queries on it."""
        from pixloc_ros.evaluation.datasets import localization
        from pixloc_ros.evaluation.datasets.report import SceneResult
        from pixloc_ros.geometry.trajectory import write_poses
        from pixloc_ros.priors.file_priors import map_from_world

        folder = self.output / "scenes" / scene.name
        folder.mkdir(parents=True, exist_ok=True)
        map_folder = self.output / "maps" / scene.map_name
        config = self._config(map_folder)
        map_ = _open_map(scene, map_folder, config)
        names = [query.name for query in scene.queries]
        found = localization.localize_scene(
            scene,
            localization.MapRecipe(config.model_dump_json()),
            localization.global_prior(scene.retrieval, map_, names, config),
            folder,
            localization.map_settings(map_, config, scene.retrieval),
            self.workers,
            track,
        )
        T_map_world = map_from_world(map_)
        accepted = localization.poses_of(found, T_map_world)
        answered = localization.poses_with_fallback(found, T_map_world)
        write_poses(folder / "poses.txt", accepted)
        write_poses(folder / "poses_with_fallback.txt", answered)
        return SceneResult(scene, accepted, answered)

    def _config(self, map_folder: Path) -> Config:
        """Settings of the dataset, then of the file, then of --set."""
        from pixloc_ros import config as configuration

        given = dict(parse_setting(setting) for setting in self.settings)
        given["map"] = str(map_folder.absolute())
        if self.device is not None:
            given["device"] = self.device
        own = dict(self.dataset.settings)
        if self.config is None:
            return configuration.from_flat({**own, **given})
        return configuration.load(self.config, given)


def _open_map(scene: Scene, folder: Path, config: Config) -> Map:
    from pixloc_ros.features.pyramid import MAX_SIDE_PX, FeatureExtractor
    from pixloc_ros.maps.build.builder import build_map
    from pixloc_ros.maps.map import Map

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
    """What a scene's map is built from: its model, or posed images without points."""

    scene: Scene

    @property
    def images(self) -> Path:
        """Folder that the names of the references start from."""
        return self.scene.reference_images

    def model(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, BuildOptions]:
        """Read the references, and triangulate where they come without points."""
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
