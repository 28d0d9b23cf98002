"""Write the demo's dataset: mapping images with a COLMAP model, and the images of a later drive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common import image_files
from pixloc_ros.demo.street import drive
from pixloc_ros.demo.street.ground import Layout
from pixloc_ros.demo.street.lens import StreetLens, find_lens
from pixloc_ros.demo.street.photograph import PoseBefore, moving, photograph
from pixloc_ros.demo.street.sessions import SESSIONS, StreetSession, find_session
from pixloc_ros.demo.street.street import Street
from pixloc_ros.demo.street.tracks import PosedView, build_tracks
from pixloc_ros.errors import DataError
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap_writer import ImageToWrite, write_model

Progress = Callable[[int, int], None]
Recording = tuple[StreetSession, StreetLens]  # the conditions of a drive, and its camera


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """What to generate. length_m: length of the drive; the street is longer at both ends.

    Raises ConfigError for an unknown session or lens.
    """

    seed: int = 0
    length_m: float = 100.0
    width: int = 640
    height: int = 384
    keyframe_spacing_m: float = 1.0
    rate_hz: float = drive.RATE_HZ
    workers: int = 2
    session: str = "later"  # conditions of the drive, one of SESSIONS
    mapping_lens: str = "pinhole"  # one of LENSES
    drive_lens: str = ""  # one of LENSES; empty: the session's, or that of the mapping drive
    speed_m_s: float = drive.SPEED_M_S  # speed of the drive
    readout_s: float = 0.0  # of the drive's camera, stamped at its first row; 0: as in its lens

    def __post_init__(self) -> None:
        find_session(self.session)
        find_lens(self.mapping_lens)
        find_lens(self.drive_lens or self.mapping_lens)

    @property
    def lens(self) -> StreetLens:
        """The camera of the mapping drive."""
        return self._sized(self.mapping_lens)

    def lens_of(self, session: StreetSession) -> StreetLens:
        """Return the camera of a drive in this session."""
        lens = self._sized(self.drive_lens) if self.drive_lens else session.lens or self.lens
        if self.readout_s:
            return replace(lens, readout_s=self.readout_s, stamp_row="first")
        return lens

    def _sized(self, lens: str) -> StreetLens:
        return replace(find_lens(lens), width=self.width, height=self.height)

    def drive_poses(self) -> tuple[list[int], list[Matrix]]:
        """Return stamps in ns and T_map_base of the drive."""
        return drive.drive_poses(self.layout, 1.5, self.length_m, self.rate_hz, self.speed_m_s)

    @property
    def K(self) -> tuple[float, float, float, float]:
        """fx fy cx cy of that camera."""
        return self.lens.K

    @property
    def layout(self) -> Layout:
        """The centre line of the street."""
        return Layout.curve(self.length_m + 10.0)

    def generate(self, session: StreetSession) -> Street:
        """Generate the street in the conditions of a session."""
        return Street.generate(self.seed, self.length_m + 10.0, session)


@dataclass(frozen=True, slots=True, eq=False)
class _StreetImage:
    """One picture to take."""

    index: int
    path: Path
    T_map_cam: Matrix
    T_map_cam_before: Matrix  # one period of the drive earlier
    T_map_cam_after: Matrix


def write_dataset(
    folder: Path, options: DatasetOptions | None = None, progress: Progress | None = None
) -> None:
    """Write mapping/{images,meta.json,colmap} and drive/{images,meta.json} below folder.

    progress: called as progress(done, total) after every picture.

    The folder appears when everything is written. Raises DataError if it exists.
    """
    if folder.exists():
        raise DataError(f"{folder} exists already: remove it or choose another folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write_drives(partial, options or DatasetOptions(), progress)
    partial.rename(folder)


def write_drive(
    folder: Path, options: DatasetOptions, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Write images and meta.json of one drive, in the options' session, below folder."""
    session = find_session(options.session)
    stamps, poses = options.drive_poses()
    shots = _shots(folder, poses)
    _take(options, (session, options.lens_of(session)), shots, progress)
    seconds = [stamp / 1e9 for stamp in stamps]
    _write_meta(folder, shots, seconds, options, options.lens_of(session))


def _write_drives(folder: Path, options: DatasetOptions, progress: Progress | None) -> None:
    keyframes = drive.mapping_poses(
        options.layout, 0.0, options.length_m + 5.0, options.keyframe_spacing_m
    )
    stamps, _ = options.drive_poses()
    total = len(keyframes) + len(stamps)

    def report(offset: int, done: int) -> None:
        if progress:
            progress(offset + done, total)

    mapping = _shots(folder / "mapping", keyframes)
    depths = _take(
        options, (SESSIONS["mapping"], options.lens), mapping, lambda done: report(0, done)
    )
    _write_colmap(folder / "mapping", mapping, depths, options)
    seconds = np.arange(len(keyframes)) * options.keyframe_spacing_m / drive.SPEED_M_S
    _write_meta(folder / "mapping", mapping, seconds.tolist(), options, options.lens)
    write_drive(folder / "drive", options, lambda done: report(len(keyframes), done))


def _shots(folder: Path, poses: Sequence[Matrix]) -> list[_StreetImage]:
    images = folder / "images"
    images.mkdir(parents=True)
    T_map_cam = [T_map_base @ drive.T_BASE_CAM for T_map_base in poses]
    # Beyond both ends, the camera moves on as it does next to them.
    first, second = T_map_cam[0], T_map_cam[min(1, len(poses) - 1)]
    last, last_but_one = T_map_cam[-1], T_map_cam[max(0, len(poses) - 2)]
    before, after = (A @ np.linalg.inv(B) @ A for A, B in ((first, second), (last, last_but_one)))
    around = zip([before, *T_map_cam], T_map_cam, [*T_map_cam[1:], after], strict=False)
    return [
        _StreetImage(k, images / f"{k:06d}.jpg", T, T_before, T_after)
        for k, (T_before, T, T_after) in enumerate(around)
    ]


def _take(
    options: DatasetOptions,
    recording: Recording,
    shots: Sequence[_StreetImage],
    progress: Callable[[int], None],
) -> list[NDArray[np.float32]]:
    """Render and write images; return the depth images in the order of shots."""
    depths = []
    for done, depth_m in enumerate(_photograph_all(options, recording, shots), start=1):
        depths.append(depth_m)
        progress(done)
    return depths


def _photograph_all(
    options: DatasetOptions, recording: Recording, shots: Sequence[_StreetImage]
) -> Iterator[NDArray[np.float32]]:
    if options.workers <= 1:
        camera = _StreetCamera(options, recording)
        yield from map(camera.photograph, shots)
        return
    # New processes: forking one whose libraries run threads already may hang.
    with ProcessPoolExecutor(
        options.workers, get_context("spawn"), _start_worker, (options, recording)
    ) as pool:
        yield from pool.map(_photograph, shots, chunksize=4)


class _StreetCamera:
    def __init__(self, options: DatasetOptions, recording: Recording):
        self.options, (self.session, self.lens) = options, recording
        self.street = options.generate(self.session)

    def photograph(self, shot: _StreetImage) -> NDArray[np.float32]:
        """Render and write one picture; return its depth (H, W) in metres."""
        rng = np.random.default_rng([self.options.seed, shot.index])
        view = photograph(self.street, self.session, self.lens, self._motion(shot), rng)
        image_files.write(shot.path, view.image_rgb, image_files.IMAGE_QUALITY)
        return view.depth_m

    def _motion(self, shot: _StreetImage) -> PoseBefore:
        poses = shot.T_map_cam_before, shot.T_map_cam, shot.T_map_cam_after
        return moving(*poses, 1.0 / self.options.rate_hz)


_worker: _StreetCamera | None = None


def _start_worker(options: DatasetOptions, recording: Recording) -> None:
    global _worker
    cv2.setNumThreads(1)
    _worker = _StreetCamera(options, recording)


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
        assert image is not None  # it was just written
        views.append(PosedView(image, depth_m, shot.T_map_cam))
    tracks = build_tracks(views, options.lens)
    images = [
        ImageToWrite(shot.path.name, np.linalg.inv(shot.T_map_cam), pixels + 0.5, numbers)
        for shot, (pixels, numbers) in zip(shots, tracks.observations, strict=True)
    ]
    camera = options.lens.camera
    write_model(folder / "colmap", [camera], images, tracks.points, tracks.colours)


def _write_meta(
    folder: Path,
    shots: Sequence[_StreetImage],
    seconds: Sequence[float],
    options: DatasetOptions,
    lens: StreetLens,
) -> None:
    images = [
        {
            "file": shot.path.name,
            "width": lens.width,
            "height": lens.height,
            "K": list(lens.K),
            **({"distortion_model": lens.distortion_model, "D": list(lens.D)} if lens.D else {}),
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
