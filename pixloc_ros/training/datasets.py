"""Read public data sets in their official layouts, with the pairs that PixLoc was trained on.

MegaDepth: undistorted reconstructions, with or without depth maps, undistorted as by D2-Net's
scripts (COLMAP's image_undistorter per scene). Extended CMU Seasons: slices with references, and
queries of other seasons whose poses are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixloc_ros.common.numbers_file import read_npz
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import CameraError, DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.training.data_config import CmuConfig, MegaDepthConfig
from pixloc_ros.training.scenes import (
    MISSING,
    TrainingScene,
    TrainingView,
    not_hidden,
    pair_up,
    views_of_model,
)

MEGADEPTH_LAYOUT = "Undistorted_SfM/<scene>/images and Undistorted_SfM/<scene>/sparse"
MEGADEPTH_PARTS = ("images", "sparse")
MEGADEPTH_DEPTH = "dense*/depths/*.h5"
SMALL = "image small"
NO_DEPTH = "depth map missing"
UPRIGHT_DEG = 60.0  # images tilted by less stay as they are

CMU_LAYOUT = "intrinsics.txt and slice<n>/ with database, query, camera-poses and {model}"
# A query observes the points of a reference that is as near and looks the same way.
NEAR_M, NEAR_DEG = 1.0, 30.0
FAR_AWAY, UNKNOWN_CAMERA = "query far from references", "camera unknown"


def read_megadepth(
    config: MegaDepthConfig, skipped: Counter[str], progress: Progress = silent
) -> list[TrainingScene]:
    """Read the reconstructions; images that lie on their side are rotated upright.

    Raises DataError for another layout, and MapError for a damaged model.
    """
    root = config.path / "Undistorted_SfM"
    names = config.scenes or _listed(config.scene_list) or subfolders(root, "*/sparse")
    expect(
        config.path,
        MEGADEPTH_LAYOUT,
        [root / n / part for n in names for part in MEGADEPTH_PARTS],
        names,
    )
    scenes = []
    for name in progress(names, "Reading scenes", len(names)):
        views, points_world = _read_scene(root / name, config, skipped)
        if views:
            overlap = _overlap(config.scene_info, name, views) if config.scene_info else None
            scenes.append(pair_up(name, upright(views), points_world, config, overlap=overlap))
    return scenes


def _listed(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DataError(f"scene_list {file}: {error.strerror}") from None


def _overlap(folder: Path, scene: str, views: Sequence[TrainingView]) -> Matrix:
    """Return the overlap (V, V) of views, from D2-Net's file of the scene; 0 for missing images."""
    file = folder / f"{scene}.npz"
    content = read_npz(file)
    try:
        paths, matrix = content["image_paths"], np.asarray(content["overlap_matrix"], float)
    except KeyError as error:
        raise DataError(f"{file} lacks {error}: expected D2-Net's scene info") from None
    if matrix.shape != (len(paths), len(paths)):
        raise DataError(f"{file}: {matrix.shape} overlaps of {len(paths)} images")
    row_of = {Path(str(path)).name: row for row, path in enumerate(paths) if path is not None}
    rows = np.array([row_of.get(view.path.name, -1) for view in views])
    known = (rows[:, None] >= 0) & (rows >= 0)
    return np.where(known, matrix[rows[:, None], rows], 0.0)


def _read_scene(
    folder: Path, config: MegaDepthConfig, skipped: Counter[str]
) -> tuple[list[TrainingView], Matrix]:
    model = read_model(folder / "sparse")
    views = views_of_model(model, folder / "images", config, skipped)
    if any(view.camera.model != "PINHOLE" for view in views):
        raise DataError(f"{folder / 'sparse'} has distorted cameras: expected the undistorted ones")
    large = [v for v in views if min(v.camera.width, v.camera.height) >= config.min_side_px]
    skipped[SMALL] += len(views) - len(large)
    if config.depth is not None:
        large = _with_depth(large, config.depth / folder.name, skipped)
    return large, model.points_world


def _with_depth(
    views: Sequence[TrainingView], folder: Path, skipped: Counter[str]
) -> list[TrainingView]:
    """Return the views that have a depth map, with its file. Raises DataError if there is none."""
    file_of = {file.stem: file for file in sorted(folder.glob(MEGADEPTH_DEPTH))}
    if not file_of:
        raise DataError(f"depth {folder} has no {MEGADEPTH_DEPTH}: expected MegaDepth_v1/<scene>")
    found = [replace(v, depth=file_of[v.path.stem]) for v in views if v.path.stem in file_of]
    skipped[NO_DEPTH] += len(views) - len(found)
    return found


def upright(views: Sequence[TrainingView]) -> list[TrainingView]:
    """Rotate views by quarter turns so that the direction most of them call down is down in all."""
    R_cam_world = np.stack([view.T_cam_world[:3, :3] for view in views])
    down_world = np.median(R_cam_world[:, 1], axis=0)
    down_cam = R_cam_world @ down_world
    tilt_deg = np.rad2deg(np.arctan2(down_cam[:, 0], down_cam[:, 1]))
    turns = np.where(np.abs(tilt_deg) > UPRIGHT_DEG, np.round(-tilt_deg / 90), 0).astype(int) % 4
    return [turned(view, int(n)) for view, n in zip(views, turns, strict=True)]


def turned(view: TrainingView, quarters: int) -> TrainingView:
    """Rotate a view's image counter-clockwise; only for pinhole cameras."""
    camera, T_cam_world = view.camera, view.T_cam_world
    for _ in range(quarters):
        camera, T_cam_world = _turned_camera(camera), T_TURNED @ T_cam_world
    return replace(view, camera=camera, T_cam_world=T_cam_world, turns=view.turns + quarters)


# Counter-clockwise, the right side moves to the top: x' = y and y' = -x.
R_TURNED: NDArray[np.float64] = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
T_TURNED = se3.make(R_TURNED, np.zeros(3))


def _turned_camera(camera: Camera) -> Camera:
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
    width, height = camera.size.tolist()
    return Camera.create(camera.model, [height, width], [fy, fx], [cy, width - 1 - cx])


def read_cmu(
    config: CmuConfig, skipped: Counter[str], progress: Progress = silent
) -> list[TrainingScene]:
    """Read each slice's references, and its queries of other seasons whose poses are known."""
    names = [f"slice{n}" for n in config.slices] or subfolders(config.path, "slice*/database")
    parts = ("database", "query", "camera-poses", config.model)
    needed = [config.path / "intrinsics.txt"] + [config.path / n / p for n in names for p in parts]
    expect(config.path, CMU_LAYOUT.format(model=config.model), needed, names)
    slices = progress(names, "Reading slices", len(names))
    cameras = _read_intrinsics(config.path / "intrinsics.txt")
    return [_read_slice(config.path / name, cameras, config, skipped) for name in slices]


def _read_slice(
    folder: Path, cameras: dict[str, Camera], config: CmuConfig, skipped: Counter[str]
) -> TrainingScene:
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
    poses: Sequence[tuple[str, Matrix]],
    cameras: dict[str, Camera],
    references: Sequence[TrainingView],
    model: ColmapModel,
    skipped: Counter[str],
) -> list[TrainingView]:
    """Return the queries near a reference, each with the reference's points that it has in view."""
    T_world_ref = se3.inverse(np.stack([view.T_cam_world for view in references]))
    tree = cKDTree(T_world_ref[:, :3, 3])
    queries = []
    for name, T_cam_world in poses:
        camera = next((cameras[word] for word in name.split("_") if word in cameras), None)
        beside = _nearest_reference(se3.inverse(T_cam_world), T_world_ref, tree)
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


def _nearest_reference(T_world_cam: Matrix, T_world_ref: Matrix, tree: cKDTree) -> int | None:
    """Return the nearest reference within NEAR_M that looks the same way within NEAR_DEG."""
    near = tree.query_ball_point(T_world_cam[:3, 3], NEAR_M)
    alike = [i for i in near if se3.angle_deg(T_world_ref[i], T_world_cam) < NEAR_DEG]
    return min(alike, key=lambda i: se3.distance_m(T_world_ref[i], T_world_cam), default=None)


def _poses(file: Path) -> list[tuple[str, Matrix]]:
    """Read T_cam_world by image from lines `name qw qx qy qz cx cy cz`, c the camera centre."""
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
    """Read cameras by name from lines `c0 OPENCV width height parameters...`."""
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


def subfolders(root: Path, pattern: str) -> list[str]:
    """Return the names of the folders in root that contain the pattern."""
    return sorted(path.relative_to(root).parts[0] for path in root.glob(pattern))


def expect(root: Path, layout: str, needed: Sequence[Path], names: Sequence[str]) -> None:
    """Raise DataError unless everything needed exists."""
    missing = next((path for path in needed if not path.exists()), None)
    if names and missing is None:
        return
    lacks = missing.relative_to(root).as_posix() if missing else "all of it"
    raise DataError(f"{root} lacks {lacks}: expected {layout}; found {_listing(root)}")


def _listing(root: Path, most: int = 8) -> str:
    if not root.is_dir():
        return "no such folder"
    names = sorted(path.name for path in root.iterdir())
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"
