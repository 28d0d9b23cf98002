"""`research refinement`: poses of SIFT and PnP, before and after alignment (Table 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from scipy.spatial import KDTree

from pixloc_ros.cli import shots as cli
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import MapOption, SetOption, SettingsOptions
from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.config import Config
from pixloc_ros.evaluation.shots import Offset
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.pnp import PnpPose
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Frame, Matrix, PosePrior
from research import experiment
from research.baselines.localizer import MATCHERS, MIN_INLIERS, BaselineLocalizer

SIGMA_M, SIGMA_DEG = 0.25, 1.0  # errors of a matcher's pose
SAME_PLACE_PX = 3.0  # between an inlier's keypoint and its map point
NOT_FOUND = (np.inf, np.inf)
# One initial pose, as refinement uses. The reference's policy needs few points, like refinement.
REFINED = (
    "hypotheses.max_initial_poses=1",
    "hypotheses.second_attempt_from=0",
    "hypotheses.max_alternatives=0",
    "view.min_points=10",
)


class Refinement:
    """A matcher's localizer, and ours that starts from its result."""

    def __init__(self, matcher: BaselineLocalizer, map_: Map, configs: dict[str, Config]):
        self.matcher, self.map = matcher, map_
        self.ours = {name: Localizer(config, map_) for name, config in configs.items()}

    def errors(
        self, frame: Frame, T_map_base: Matrix, prior: PosePrior
    ) -> Iterator[tuple[str, tuple[float, float]]]:
        """Return errors in m and deg of the matcher and of all refinements of its pose."""
        found, pixels = self.matcher.solve(frame, prior, Stopwatch())
        enough = found is not None and len(found.inliers) >= MIN_INLIERS
        begin = found.T_map_cam @ se3.inverse(frame.T_base_cam) if found and enough else None
        yield "matcher", _error(begin, T_map_base)
        for name, localizer in self.ours.items():
            for chosen in ("all points", "inliers"):
                if found is None or begin is None:
                    yield f"{name}, {chosen}", NOT_FOUND
                    continue
                ids = self._inliers(frame, found, pixels) if chosen == "inliers" else None
                covariance = diagonal(SIGMA_M, SIGMA_DEG)
                at = PosePrior(begin, covariance, "matcher", frame.stamp_ns, ids)
                refined = localizer.localize(frame, at).candidate_T_map_base
                # As hloc with PixLoc: if alignment fails, the matcher's pose is kept.
                yield f"{name}, {chosen}", _error(begin if refined is None else refined, T_map_base)

    def _inliers(
        self, frame: Frame, found: PnpPose, pixels: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Return the ids of the map points at the matcher's inliers."""
        near, _ = self.map.keyframes_within(found.T_map_cam[:3, 3], 60.0)
        tiles = {int(self.map.keyframe_tile[k]) for k in near}
        parts = [self.map.tiles.tile(number) for number in tiles]
        ids = np.concatenate([tile.point_id for tile in parts])
        points = np.concatenate([tile.points_map() for tile in parts])
        points_cam = se3.transform(se3.inverse(found.T_map_cam), points)
        projected, valid = frame.camera.project(torch.from_numpy(points_cam))
        shown = valid.numpy()
        far, _ = KDTree(pixels[found.inliers]).query(projected.numpy()[shown])
        return np.unique(ids[shown][far < SAME_PLACE_PX])


def _error(T_found: Matrix | None, T_map_base: Matrix) -> tuple[float, float]:
    if T_found is None:
        return NOT_FOUND
    return se3.distance_m(T_found, T_map_base), se3.angle_deg(T_found, T_map_base)


def refinement(
    map_folder: MapOption,
    images: cli.ImagesOption,
    meta: cli.MetaOption,
    output: Annotated[Path, typer.Option(help="JSON file of all errors; existing ones are kept")],
    method: Annotated[
        Literal["sift", "disk_lightglue"], typer.Option(help="keypoints to match")
    ] = "sift",
    exclude_every: cli.ExcludeOption = 0,
    every: cli.EveryOption = 1,
    degrade: Annotated[str, typer.Option(help="clean, night, blur, ...")] = "clean",
    axes: cli.AxesOption = "keep",
    settings: SetOption = None,
) -> None:
    """Match keypoints, solve for the pose, and align it: with all points, and with the inliers.

    Runs on several maps with the same output are pooled.

    Example: python -m research refinement --map town --images drive/images --meta drive/meta.json
    --output refinement.json
    """
    drive = read_posed_images(meta, images, axes)
    series = experiment.Series(
        drive, experiment.drive_index(drive, exclude_every, every), Offset(1.0, 2.0), 1, degrade
    )
    given = [*REFINED, *(settings or [])]
    config = SettingsOptions(given=given).resolve(map_folder)
    reference = SettingsOptions(given=[*given, "alignment.policy=reference"]).resolve(map_folder)
    map_ = Map.load(config.map)
    matcher = BaselineLocalizer(MATCHERS[method](config.device), map_, images, config)
    both = Refinement(matcher, map_, {"ours": config, "reference's policy": reference})
    record, rng = experiment.Record(output), np.random.default_rng(series.seed)
    for frame, T_map_base in track(series.frames(), degrade, len(series)):
        prior = series.offset.prior(T_map_base, frame.stamp_ns, rng)
        place = Path(f"{map_folder.name} {meta.stem} {frame.name}")
        if not record.has("matcher", place):
            errors = both.errors(frame, T_map_base, prior)
            record.add_all({name: np.array([error]) for name, error in errors}, place)
    title = f"{method}, {degrade}, before and after"
    Console().print(experiment.table(title, experiment.rows(record.pooled())))
