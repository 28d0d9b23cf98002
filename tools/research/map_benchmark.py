"""Measure the cost of a map's size: at the start, per frame, in memory and on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from pixloc_ros.config import Config
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.view import select_view
from pixloc_ros.types import Frame, PosePrior
from research.invented_map import (
    CAMERA,
    STRETCH_M,
    InventedMap,
    camera_poses,
    write_invented_map,
)

FRAMES, STEP_M = 300, 1.0  # of the drive that views are timed on
FAR_FRAMES, FAR_STEP_M = 200, 20.0  # of the drive that fills the memory
JUMPS = 20  # views at places without open or cached tiles


@dataclass(frozen=True, slots=True)
class Start:
    """Times with a cold file cache, without imports."""

    load_ms: float  # of the map
    first_view_ms: float  # opens the first tiles
    first_pose_ms: float  # from the first line on: map, network, first frame


@dataclass(frozen=True, slots=True)
class Driving:
    """Views of frames one metre apart, with time for the background thread between."""

    view_ms: float  # median
    view_p99_ms: float
    fresh_view_ms: float  # median if tiles must be opened first
    open_mb: float  # of tiles, maximum
    memory_mb: float  # growth of the process, maximum


@dataclass(frozen=True, slots=True)
class MapFigures:
    """Measurements of one map."""

    points: int
    length_km: float
    tiles: int
    bytes: int
    start: Start
    driving: Driving


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function from a separate process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(work, *arguments).result()


def measure(
    points: int, folder: Path, config: Config, run: Callable[..., Any] = in_fresh_process
) -> MapFigures:
    """Write a synthetic map with that many points into a folder; measure it in new processes."""
    extractor = FeatureExtractor(config.features.weights)
    what = InventedMap(points, model_id=extractor.model_id, weights_sha256=extractor.sha256)
    write_invented_map(what, folder)
    config = config.model_copy(update={"map": str(folder)})
    start = run(measure_start, config, what.keyframes)
    driving = run(measure_driving, config, what.keyframes)
    map_ = Map.load(folder, verify=False)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return MapFigures(map_.point_count, what.length_km, len(map_.tiles), size, start, driving)


def measure_start(config: Config, keyframes: int) -> Start:
    """Measure in this process, in the middle of the road."""
    _forget(Path(config.map))
    T_map_cam = camera_poses(np.array([keyframes // 2]))[0]
    image = np.random.default_rng(0).integers(0, 255, (CAMERA.height, CAMERA.width, 3), np.uint8)
    T_base_cam = se3.base_from_optical()
    frame = Frame(image, CAMERA, 0, T_base_cam)
    prior = PosePrior(T_map_cam @ se3.inverse(T_base_cam), diagonal(0.5, 1.0), "file", 0)
    began = time.perf_counter()
    map_ = Map.load(config.map, tiles=config.tiles, device=config.device)
    loaded = time.perf_counter()
    select_view(map_, T_map_cam, CAMERA, config.view, config.device)
    viewed = time.perf_counter()
    Localizer(config, map_).localize(frame, prior)
    ended = time.perf_counter()
    return Start(*(1e3 * (t - s) for s, t in ((began, loaded), (loaded, viewed), (began, ended))))


def measure_driving(config: Config, keyframes: int) -> Driving:
    """Measure in this process, from the middle of the road on, to and fro on short roads."""
    road_m = (keyframes - 1) * STRETCH_M
    before_mb = _resident_mb()
    map_ = Map.load(config.map, tiles=config.tiles, device=config.device)
    near = _drive(map_, config, road_m / 2 + np.arange(FRAMES) * STEP_M)
    far = _drive(map_, config, road_m / 2 + np.arange(FAR_FRAMES) * FAR_STEP_M)
    memory_mb = max(near[2], far[2]) - before_mb
    alone = config.tiles.model_copy(update={"budget_mb": 0.0, "prefetch_m": 0.0})
    map_ = Map.load(config.map, tiles=alone, device=config.device)
    fresh = []
    for along_m in np.random.default_rng(0).uniform(0, road_m, JUMPS):
        _forget(Path(config.map))
        fresh.append(_drive(map_, config, np.array([along_m]))[0][0])
    view_ms = np.array(near[0])
    return Driving(
        view_ms=float(np.median(view_ms)),
        view_p99_ms=float(np.percentile(view_ms, 99)),
        fresh_view_ms=float(np.median(fresh)),
        open_mb=max(near[1], far[1]),
        memory_mb=memory_mb,
    )


def _drive(map_: Map, config: Config, along_m: np.ndarray) -> tuple[list[float], float, float]:
    """Return view times in ms, and the maxima of open tiles and of memory in MB."""
    road_m = (len(map_.keyframe_names) - 1) * STRETCH_M
    times_ms, open_mb, resident_mb = [], 0.0, 0.0
    for at_m in np.abs((along_m + road_m) % (2 * road_m) - road_m):
        T_map_cam = camera_poses(np.array([at_m / STRETCH_M]))[0]
        began = time.perf_counter()
        select_view(map_, T_map_cam, CAMERA, config.view, config.device)
        times_ms.append(1e3 * (time.perf_counter() - began))
        map_.tiles.settle()
        open_mb = max(open_mb, map_.tiles.bytes / 1e6)
        resident_mb = max(resident_mb, _resident_mb())
    return times_ms, open_mb, resident_mb


def _resident_mb() -> float:
    """Return the memory of this process, with touched pages of mapped files."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _forget(folder: Path) -> None:
    """Ask the system to drop the files of a folder from its cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
