"""Extended CMU Seasons in its official layout, paired as PixLoc was trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from pixloc_ros.errors import CameraError, DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.build.builder import Progress
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.training.data_config import CmuConfig
from pixloc_ros.training.layouts import expect, subfolders
from pixloc_ros.training.scenes import (
    MISSING,
    Array,
    Scene,
    TrainingView,
    not_hidden,
    pair_up,
    views_of_model,
)

LAYOUT = "intrinsics.txt and slice<n>/ with database, query, camera-poses and {model}"
# A query sees what the reference sees that stands so near and looks the same way.
NEAR_M, NEAR_DEG = 1.0, 30.0
FAR_AWAY, UNKNOWN_CAMERA = "query far from references", "camera unknown"


def read_cmu(
    config: CmuConfig, skipped: Counter[str], progress: Progress | None = None
) -> list[Scene]:
    """Each slice's references, and its queries of other seasons whose poses are known."""
    names = [f"slice{n}" for n in config.slices] or subfolders(config.path, "slice*/database")
    parts = ("database", "query", "camera-poses", config.model)
    needed = [config.path / "intrinsics.txt"] + [config.path / n / p for n in names for p in parts]
    expect(config.path, LAYOUT.format(model=config.model), needed, names)
    cameras = _read_intrinsics(config.path / "intrinsics.txt")
    wrapped: Iterable[str] = progress(names, "Reading slices") if progress else names
    return [_read_slice(config.path / name, cameras, config, skipped) for name in wrapped]


def _read_slice(
    folder: Path, cameras: dict[str, Camera], config: CmuConfig, skipped: Counter[str]
) -> Scene:
    model = read_model(folder / config.model)
    references = views_of_model(model, folder / "database", config, skipped)
    poses = [p for file in sorted((folder / "camera-poses").glob("*.txt")) for p in _poses(file)]
    if not references or not poses:
        raise DataError(f"{folder} has {len(references)} references and {len(poses)} query poses")
    queries = _queries(folder / "query", poses, cameras, references, model, skipped)
    views = references + queries
    first = len(references)
    return pair_up(folder.name, views, model.points_world, config, range(first, len(views)))


def _queries(
    folder: Path,
    poses: Sequence[tuple[str, Array]],
    cameras: dict[str, Camera],
    references: Sequence[TrainingView],
    model: ColmapModel,
    skipped: Counter[str],
) -> list[TrainingView]:
    """Queries that a reference stands beside: its points, as far as they are in view."""
    T_world_ref = se3.inverse(np.stack([view.T_cam_world for view in references]))
    tree = cKDTree(T_world_ref[:, :3, 3])
    queries = []
    for name, T_cam_world in poses:
        camera = next((cameras[word] for word in name.split("_") if word in cameras), None)
        beside = _beside(se3.inverse(T_cam_world), T_world_ref, tree)
        if not (folder / name).is_file():
            skipped[MISSING] += 1
        elif camera is None:
            skipped[UNKNOWN_CAMERA] += 1
        elif beside is None:
            skipped[FAR_AWAY] += 1
        else:
            guess = TrainingView(folder / name, camera, T_cam_world, references[beside].seen)
            seen = not_hidden(guess, model.points_world)
            queries.append(replace(guess, seen=seen))
    return queries


def _beside(T_world_cam: Array, T_world_ref: Array, tree: cKDTree) -> int | None:
    """The nearest reference within NEAR_M that looks the same way within NEAR_DEG."""
    near = tree.query_ball_point(T_world_cam[:3, 3], NEAR_M)
    alike = [i for i in near if se3.angle_deg(T_world_ref[i], T_world_cam) < NEAR_DEG]
    return min(alike, key=lambda i: se3.distance_m(T_world_ref[i], T_world_cam), default=None)


def _poses(file: Path) -> list[tuple[str, Array]]:
    """T_cam_world by image of lines `name qw qx qy qz cx cy cz`, c the camera's place."""
    poses = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            values = np.array(words[1:], float).reshape(7)
        except ValueError:
            raise DataError(
                f"{file}, line {number}: a pose is `name qw qx qy qz cx cy cz`, got "
                f"'{line.strip()[:60]}'"
            ) from None
        T = se3.from_qvec_wxyz(values[:4], np.zeros(3))
        T[:3, 3] = -T[:3, :3] @ values[4:]
        poses.append((words[0], T))
    return poses


def _read_intrinsics(file: Path) -> dict[str, Camera]:
    """Cameras by name of lines `c0 OPENCV width height parameters...`."""
    cameras = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            numbers = [float(word) for word in words[2:]]
            size = int(numbers[0]), int(numbers[1])
            cameras[words[0]] = Camera.from_colmap(words[1], *size, numbers[2:])
        except (ValueError, IndexError, CameraError) as error:
            raise DataError(
                f"{file}: a camera is `c0 OPENCV width height parameters...` ({error})"
            ) from None
    return cameras
