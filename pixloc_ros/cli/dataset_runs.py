"""What `pixloc evaluate-dataset` runs on the scenes of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import typer

from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import SettingsOptions
from pixloc_ros.common.parallel import Workers
from pixloc_ros.config import Config
from pixloc_ros.config.published import load_published
from pixloc_ros.evaluation.camera_poses import accepted_poses, answered_poses
from pixloc_ros.evaluation.datasets import localization, pose_lists
from pixloc_ros.evaluation.datasets.protocol import Dataset, DatasetFiles, Scene
from pixloc_ros.evaluation.datasets.published_method import PublishedRecipe
from pixloc_ros.evaluation.datasets.report import (
    ACCEPTED,
    ANSWERED,
    PUBLISHED_ROWS,
    SceneResult,
)
from pixloc_ros.evaluation.frames import FrameResult
from pixloc_ros.features.pyramid import MAX_SIDE_PX, FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.maps.build.builder import BuildContext, BuildOptions, build_map
from pixloc_ros.maps.build.triangulation import triangulate
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.map import Map
from pixloc_ros.priors.file_priors import map_from_world


class SceneRun(Protocol):
    """One way to get the poses of the queries of a benchmark's scenes."""

    @property
    def rows(self) -> tuple[str, ...]:
        """What the poses are called in the table, the accepted ones first."""

    def localize(self, scene: Scene) -> SceneResult:
        """Return the poses of a scene's queries."""


@dataclass(frozen=True, slots=True)
class GivenPoses:
    """Poses that another system has estimated; `{scene}` stands for the scene's name."""

    file: str

    @property
    def rows(self) -> tuple[str, ...]:
        """The name of the file."""
        return (Path(self.file).stem,)

    def localize(self, scene: Scene) -> SceneResult:
        """Read the poses of a scene's queries."""
        path = Path(self.file.replace("{scene}", scene.name))
        names = [query.name for query in scene.queries]
        poses = pose_lists.by_query(path, pose_lists.read_poses(path), names)
        return SceneResult(scene, poses, poses)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """Runs the published method on the scenes of a benchmark.

    inliers: hloc's log, whose poses are refined; `{scene}` stands for the scene's name.
    """

    dataset: str
    files: DatasetFiles
    config: Path
    output: Path
    device: str | None
    inliers: str
    workers: Workers

    @property
    def rows(self) -> tuple[str, ...]:
        """Those of the published method."""
        return PUBLISHED_ROWS

    def localize(self, scene: Scene) -> SceneResult:
        """Localize the queries of a scene by its references, or refine hloc's poses."""
        config = load_published(self.config, self.device).model_dump_json()
        log = Path(self.inliers.replace("{scene}", scene.name)) if self.inliers else None
        recipe = PublishedRecipe(self.dataset, self.files, scene.name, config, log)
        settings = recipe.settings(scene.retrieval)
        folder = self.output / "scenes" / scene.name
        folder.mkdir(parents=True, exist_ok=True)
        found = localization.localize_scene(
            scene, recipe, None, folder, settings, self.workers, track
        )
        return _result(scene, folder, found, np.eye(4))


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRun:
    """Runs this package's localizer on the scenes of a benchmark.

    image_pyramid: fractions 1/N of the image size, which decrease to 1; each has its own map.
    """

    dataset: Dataset
    output: Path
    settings: SettingsOptions
    image_pyramid: tuple[int, ...]
    workers: Workers

    @property
    def rows(self) -> tuple[str, ...]:
        """Those of the localizer."""
        return ACCEPTED, ANSWERED

    def localize(self, scene: Scene) -> SceneResult:
        """Build or load the map of a scene, and localize its queries on it."""
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
        name = scene.map_name if part == 1 else f"{scene.map_name}_{part}"
        folder = (self.output / "maps" / name).absolute()
        config = self.settings.resolve(folder, defaults=self.dataset.settings)
        if part == 1:
            return config
        side_px = (config.features.max_side_px or MAX_SIDE_PX) // part
        features = config.features.model_copy(update={"max_side_px": side_px})
        return config.model_copy(update={"features": features})


def _result(
    scene: Scene, folder: Path, found: Sequence[FrameResult], T_map_world: Matrix
) -> SceneResult:
    """Collect the poses of a scene's queries, and write them to its folder."""
    accepted = accepted_poses(found, T_map_world)
    answered = answered_poses(found, T_map_world)
    write_poses(folder / "poses.txt", accepted)
    write_poses(folder / "poses_with_fallback.txt", answered)
    return SceneResult(scene, accepted, answered)


def _open_map(scene: Scene, config: Config) -> Map:
    """Open the map of a scene; build it if there is none yet."""
    folder = Path(config.map)
    if folder.is_dir():
        return Map.load(folder, tiles=config.tiles)
    folder.parent.mkdir(parents=True, exist_ok=True)
    side_px = config.features.max_side_px or MAX_SIDE_PX
    extractor = FeatureExtractor(config.features.weights, config.device, side_px)
    return build_map(
        SceneSource(scene),
        folder,
        extractor=extractor,
        progress=track,
        report=partial(typer.echo, err=True),
    )


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
