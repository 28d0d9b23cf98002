"""Write the demo's dataset: mapping images with a COLMAP model, and a later drive's images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common import image_files
from pixloc_ros.demo.street import drive
from pixloc_ros.demo.street.ground import Layout
from pixloc_ros.demo.street.render import render
from pixloc_ros.demo.street.street import Drive, Street
from pixloc_ros.demo.street.surfaces import Array, Image
from pixloc_ros.demo.street.tracks import PosedView, build_tracks
from pixloc_ros.errors import DataError
from pixloc_ros.maps.files.colmap_writer import ImageToWrite, write_model

Progress = Callable[[int, int], None]
JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """What to generate. length_m: drive's length; the street is longer at both ends."""

    seed: int = 0
    length_m: float = 100.0
    width: int = 640
    height: int = 384
    keyframe_spacing_m: float = 1.0
    rate_hz: float = drive.RATE_HZ
    workers: int = 2

    @property
    def K(self) -> tuple[float, float, float, float]:
        """fx fy cx cy in pixels, top left pixel centre (0, 0); the centre is a little off."""
        focal = 0.625 * self.width
        return focal, focal, 0.497 * self.width, 0.503 * self.height

    @property
    def layout(self) -> Layout:
        """Centre line of the street."""
        return Layout.curve(self.length_m + 10.0)

    def generate(self, which: Drive) -> Street:
        """The street as it is during one of the two drives."""
        return Street.generate(self.seed, self.length_m + 10.0, which)


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the camera does to the light: gain, gamma, white balance (RGB), noise in grey levels."""

    gain: float
    gamma: float
    white_balance: tuple[float, float, float]
    noise: float

    def apply(self, image_rgb: Image, rng: np.random.Generator) -> Image:
        """The picture (H, W, 3) as this camera records it."""
        levels = np.arange(256)[:, None] / 255.0
        table = self.gain * levels**self.gamma * self.white_balance * 255.0
        developed = cv2.LUT(image_rgb, np.clip(table, 0, 255).astype(np.float32)[:, None])
        developed += self.noise * rng.standard_normal(image_rgb.shape, dtype=np.float32)
        return np.clip(np.round(developed), 0, 255).astype(np.uint8)


EXPOSURES: dict[Drive, Exposure] = {
    "mapping": Exposure(1.0, 1.0, (1.0, 1.0, 1.0), 1.0),
    "query": Exposure(0.90, 1.12, (1.05, 1.0, 0.90), 2.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class _StreetImage:
    """One picture to take."""

    index: int
    path: Path
    T_map_cam: Array


def write_dataset(
    folder: Path, options: DatasetOptions | None = None, progress: Progress | None = None
) -> None:
    """Write mapping/{images,meta.json,colmap} and drive/{images,meta.json} under folder.

    progress(done, total) is called after every picture. The folder appears when all is written.

    Raises DataError if the folder exists.
    """
    if folder.exists():
        raise DataError(f"{folder} exists already: remove it or choose another folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write_drives(partial, options or DatasetOptions(), progress)
    partial.rename(folder)


def _write_drives(folder: Path, options: DatasetOptions, progress: Progress | None) -> None:
    keyframes = drive.mapping_poses(
        options.layout, 0.0, options.length_m + 5.0, options.keyframe_spacing_m
    )
    stamps, poses = drive.drive_poses(options.layout, 1.5, options.length_m, options.rate_hz)
    total = len(keyframes) + len(poses)

    def report(offset: int, done: int) -> None:
        if progress:
            progress(offset + done, total)

    mapping = _shots(folder / "mapping", keyframes)
    depths = _take(options, "mapping", mapping, lambda done: report(0, done))
    _write_colmap(folder / "mapping", mapping, depths, options)
    seconds = np.arange(len(keyframes)) * options.keyframe_spacing_m / drive.SPEED_M_S
    _write_meta(folder / "mapping", mapping, seconds.tolist(), options)
    shots = _shots(folder / "drive", poses)
    _take(options, "query", shots, lambda done: report(len(keyframes), done))
    _write_meta(folder / "drive", shots, [stamp / 1e9 for stamp in stamps], options)


def _shots(folder: Path, poses: Sequence[Array]) -> list[_StreetImage]:
    images = folder / "images"
    images.mkdir(parents=True)
    return [
        _StreetImage(k, images / f"{k:06d}.jpg", T_map_base @ drive.T_BASE_CAM)
        for k, T_map_base in enumerate(poses)
    ]


def _take(
    options: DatasetOptions,
    which: Drive,
    shots: Sequence[_StreetImage],
    progress: Callable[[int], None],
) -> list[NDArray[np.float32]]:
    """Render, write and return the depth images, in the order of shots."""
    depths = []
    for done, depth_m in enumerate(_photograph_all(options, which, shots), start=1):
        depths.append(depth_m)
        progress(done)
    return depths


def _photograph_all(
    options: DatasetOptions, which: Drive, shots: Sequence[_StreetImage]
) -> Iterator[NDArray[np.float32]]:
    if options.workers <= 1:
        camera = _StreetCamera(options, which)
        yield from map(camera.photograph, shots)
        return
    # Fresh processes: forking one whose libraries already run threads can hang.
    with ProcessPoolExecutor(
        options.workers, get_context("spawn"), _start_worker, (options, which)
    ) as pool:
        yield from pool.map(_photograph, shots, chunksize=4)


class _StreetCamera:
    def __init__(self, options: DatasetOptions, which: Drive):
        self.options, self.exposure = options, EXPOSURES[which]
        self.street = options.generate(which)

    def photograph(self, shot: _StreetImage) -> NDArray[np.float32]:
        """Render and write one picture; returns its depth (H, W)."""
        options = self.options
        view = render(self.street, shot.T_map_cam, options.K, options.width, options.height)
        rng = np.random.default_rng([options.seed, shot.index])
        image_files.write(shot.path, self.exposure.apply(view.image_rgb, rng), JPEG_QUALITY)
        return view.depth_m


_worker: _StreetCamera | None = None


def _start_worker(options: DatasetOptions, which: Drive) -> None:
    global _worker
    cv2.setNumThreads(1)
    _worker = _StreetCamera(options, which)


def _photograph(shot: _StreetImage) -> NDArray[np.float32]:
    assert _worker is not None
    return _worker.photograph(shot)


def _write_colmap(
    folder: Path,
    shots: Sequence[_StreetImage],
    depths: Sequence[NDArray[np.float32]],
    options: DatasetOptions,
) -> None:
    views = []
    for shot, depth_m in zip(shots, depths, strict=True):
        image = image_files.read(shot.path)
        assert image is not None  # it was written a moment ago
        views.append(PosedView(image, depth_m, shot.T_map_cam))
    tracks = build_tracks(views, options.K)
    images = [
        ImageToWrite(shot.path.name, np.linalg.inv(shot.T_map_cam), pixels + 0.5, numbers)
        for shot, (pixels, numbers) in zip(shots, tracks.observations, strict=True)
    ]
    fx, fy, cx, cy = options.K
    camera = (options.width, options.height, (fx, fy, cx + 0.5, cy + 0.5))
    write_model(folder / "colmap", camera, images, tracks.points, tracks.colours)


def _write_meta(
    folder: Path, shots: Sequence[_StreetImage], seconds: Sequence[float], options: DatasetOptions
) -> None:
    images = [
        {
            "file": shot.path.name,
            "width": options.width,
            "height": options.height,
            "K": list(options.K),
            "T_world_cam": shot.T_map_cam[:3].ravel().tolist(),
            "t": t,
        }
        for shot, t in zip(shots, seconds, strict=True)
    ]
    meta = {
        "licence": "generated, no rights reserved",
        "source": f"pixloc_ros generated street, seed {options.seed}",
        "gt": "exact pose per frame, metres",
        "world_axes": "ros",
        "T_base_cam": drive.T_BASE_CAM.ravel().tolist(),
        "images": images,
    }
    (folder / "meta.json").write_text(json.dumps(meta))
