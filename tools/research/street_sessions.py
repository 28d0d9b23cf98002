"""`research street-sessions`: one street in many conditions, as one model of all its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixloc_ros.cli.progress import track
from pixloc_ros.common import image_files
from pixloc_ros.demo.street import drive
from pixloc_ros.demo.street.dataset import DatasetOptions
from pixloc_ros.demo.street.lens import StreetLens
from pixloc_ros.demo.street.photograph import moving, photograph
from pixloc_ros.demo.street.sessions import SESSIONS, StreetSession, find_session
from pixloc_ros.demo.street.tracks import PosedView, build_tracks, project_visible
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap_writer import ImageToWrite, write_model

MAPPING = "mapping"
# Where houses were rebuilt, a point has no counterpart, though its depth may agree by chance.
USUAL = tuple(name for name in SESSIONS if name not in (MAPPING, "rebuilt"))
KEYFRAME_SPACING_M = 1.5
FOCAL_SHARE = (0.5, 0.9)  # of the other sessions' cameras, drawn uniformly
ACROSS_M, UP_M = (-2.6, 0.2), (-0.35, 0.35)  # of their cameras, relative to the lane's middle
YAW_DEG, TILT_DEG = 9.0, 2.5  # standard deviations


def street_sessions(
    output: Annotated[Path, typer.Option(help="folder to write: images and sparse")],
    seed: Annotated[int, typer.Option(help="seed of the street")] = 0,
    length: Annotated[float, typer.Option(min=10, help="length of the drive, in metres")] = 30.0,
    width: Annotated[int, typer.Option(min=64, help="of the images")] = 448,
    height: Annotated[int, typer.Option(min=64, help="of the images")] = 336,
    session: Annotated[
        list[str] | None, typer.Option(help="conditions; repeatable, all if none is given")
    ] = None,
    per_session: Annotated[int, typer.Option(min=1, help="images of each session")] = 8,
) -> None:
    """Write a generated street as a COLMAP model of its mapping drive and of other sessions.

    Points are tracked through the mapping drive. An image of another session observes those that
    its exact depth does not hide, so that training pairs are of the same place in two conditions.

    Example: python -m research street-sessions --output street3 --seed 3 --session night
    """
    if output.exists():
        raise DataError(f"{output} exists already: remove it or choose another folder")
    options = DatasetOptions(seed=seed, length_m=length, width=width, height=height)
    rng = np.random.default_rng(seed)
    cv2.setNumThreads(1)
    keyframes = drive.mapping_poses(options.layout, 0.0, length, KEYFRAME_SPACING_M)
    poses = [T @ drive.T_BASE_CAM for T in keyframes]
    mapping = _take(options, find_session(MAPPING), options.lens, poses, rng)
    tracks = build_tracks(mapping, options.lens)
    cameras = [options.lens.camera]
    images = _write_images(output, MAPPING, 0, mapping, tracks.observations)
    for name in track(session or USUAL, "sessions", len(session or USUAL)):
        lens = replace(options.lens, focal_share=rng.uniform(*FOCAL_SHARE))
        poses = _scattered(options, per_session, rng)
        taken = _take(options, find_session(name), lens, poses, rng)
        seen = [project_visible(view, lens, tracks.points) for view in taken]
        observations = [(pixels[s], np.flatnonzero(s)) for pixels, s in seen]
        images += _write_images(output, name, len(cameras), taken, observations)
        cameras.append(lens.camera)
    write_model(output / "sparse", cameras, images, tracks.points, tracks.colours)


def _write_images(
    output: Path,
    session: str,
    camera: int,
    views: Sequence[PosedView],
    observations: Sequence[tuple[NDArray[np.floating], NDArray[np.int64]]],
) -> list[ImageToWrite]:
    """Write the pictures of a session, and return them as images of the model."""
    images = []
    for index, (view, (pixels, points)) in enumerate(zip(views, observations, strict=True)):
        file = f"{session}_{index:03d}.jpg"
        image_files.write(output / "images" / file, view.image_rgb, image_files.IMAGE_QUALITY)
        T_cam_map = se3.inverse(view.T_map_cam)
        images.append(ImageToWrite(file, T_cam_map, pixels + 0.5, points, camera))
    return images


def _scattered(options: DatasetOptions, count: int, rng: np.random.Generator) -> list[Matrix]:
    """Return camera poses along the street, at random places across the lane and heights."""
    along = np.sort(rng.uniform(0.0, options.length_m - 4.0, count))
    layout, poses = options.layout, []
    for x in along:
        yaw = layout.heading(x) + np.radians(YAW_DEG) * rng.standard_normal()
        tilt = np.radians(TILT_DEG) * rng.standard_normal(2)
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("ZYX", [float(yaw), *tilt]).as_matrix()
        T[:3, 3] = x, layout.centre(x) + rng.uniform(*ACROSS_M), rng.uniform(*UP_M)
        poses.append(T @ drive.T_BASE_CAM)
    return poses


def _take(
    options: DatasetOptions,
    session: StreetSession,
    lens: StreetLens,
    poses: Sequence[Matrix],
    rng: np.random.Generator,
) -> list[PosedView]:
    street = options.generate(session)
    views = []
    for T_map_cam in poses:
        still = moving(T_map_cam, T_map_cam, T_map_cam, 1.0)
        view = photograph(street, session, lens, still, rng)
        views.append(PosedView(view.image_rgb, view.depth_m, T_map_cam))
    return views
