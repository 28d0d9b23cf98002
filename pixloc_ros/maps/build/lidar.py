"""A model from a point cloud and posed images: who sees which points, and which are of use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps import occlusion
from pixloc_ros.maps.build import visibility
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel
from pixloc_ros.maps.files.meshes import Mesh
from pixloc_ros.maps.files.posed_images import PosedImage, read_image

Index = NDArray[np.intp]

CORNER_WINDOW_PX = 5
EDGE_PX, EDGE_RATIO = 8, 1.25  # cells and ratio of depths that make an edge between surfaces
PER_CELL = 2  # points of a cell and octave that an image observes
BORDER_PX = 4  # features at the border are made of what is not in the image


@dataclass(frozen=True, slots=True)
class LidarOptions:
    """Which points of a cloud become points of the map."""

    voxel_m: float = 0.05  # of several points in one, one is kept
    cells_per_image: int = 2000  # each gives a point per octave of depth
    min_range_m: float = 1.5
    max_range_m: float = 150.0
    plain_share: float = 0.3  # of the visible points, those with least texture, are not chosen


@dataclass(frozen=True, slots=True)
class LidarReport:
    """What became of the cloud."""

    read: int
    kept: int  # after thinning
    chosen: int
    unseen: tuple[str, ...]  # images that see no point

    def __str__(self) -> str:
        text = f"{self.read} points, {self.kept} after thinning, {self.chosen} chosen for the map"
        return text + (f"; {len(self.unseen)} images see none" if self.unseen else "")


@dataclass(frozen=True, slots=True)
class _CloudView:
    """What one image sees of the cloud."""

    points: Index  # (N,)
    pixels: Matrix  # (N, 2)
    interest: NDArray[np.float32]  # (N,) texture there
    cell: NDArray[np.int64]  # (N,) of the image, and octave of depth
    depth_m: NDArray[np.float16]  # occlusion.GRID, of all that is seen


def model_from_cloud(
    points_map: Matrix,
    images: Sequence[PosedImage],
    options: LidarOptions | None = None,
    progress: Progress = silent,
    mesh: Mesh | None = None,
) -> tuple[ColmapModel, LidarReport]:
    """The points (N, 3) worth having in a map, and which images see them.

    mesh: the occluder that the points are on, which then tells exactly what hides them.
    The model's world is the map, as the cloud's must be. Hidden points get no observation in the
    images they are hidden in. Raises MapError where no image sees any point.
    """
    options = options or LidarOptions()
    zero = np.round(np.median(points_map, axis=0))
    local = points_map - zero
    cloud = visibility.prepare(local[visibility.thin(local, options.voxel_m)])
    occluder = (
        None if mesh is None else visibility.MeshOccluder(mesh.vertices - zero, mesh.triangles)
    )
    chosen = np.zeros(len(cloud.points), bool)
    views = []
    for image in progress(images, "Finding visible points", len(images)):
        views.append(_view_cloud(cloud, occluder, image, zero, options))
        chosen[_choose(views[-1], chosen, options.plain_share)] = True
    if not chosen.any():
        raise MapError(
            "no image sees a point of the cloud: are both in one frame? (--axes turns both)"
        )
    seen = np.concatenate([view.points for view in views])
    view_counts = np.bincount(seen, minlength=len(chosen)) * chosen
    views = [_keep_best(view, view_counts) for view in views]
    model = _model(images, views, np.flatnonzero(chosen), cloud.points + zero)
    unseen = tuple(image.name for image in model.images if not len(image.point_ids))
    report = LidarReport(len(points_map), len(cloud.points), int(chosen.sum()), unseen)
    return model, report


def _view_cloud(
    cloud: visibility.Cloud,
    occluder: visibility.MeshOccluder | None,
    image: PosedImage,
    zero: Matrix,
    options: LidarOptions,
) -> _CloudView:
    T_local_cam = image.T_map_cam.copy()
    T_local_cam[:3, 3] -= zero
    limits = (options.min_range_m, options.max_range_m)
    points, pixels, depths_m = visibility.visible(
        cloud, image.camera, T_local_cam, limits, occluder
    )
    grid = occlusion.depth_grid(pixels, depths_m, image.camera)
    inner = image.camera.size.numpy() - 1 - BORDER_PX
    inside = ((pixels >= BORDER_PX) & (pixels <= inner)).all(-1)
    inside &= ~_near_a_closer_surface(pixels, depths_m, image.camera)
    points, pixels, depths_m = points[inside], pixels[inside], depths_m[inside]
    column, row = np.round(pixels).astype(int).T
    cell = _cells(pixels, depths_m, image.camera, options.cells_per_image)
    return _CloudView(points, pixels, _texture(image)[row, column], cell, grid)


def _near_a_closer_surface(pixels: Matrix, depths_m: Matrix, camera: Camera) -> NDArray[np.bool_]:
    """(N,) whether something much nearer is within few pixels: features mix what they see."""
    shape = (camera.height // EDGE_PX + 1, camera.width // EDGE_PX + 1)
    column, row = ((pixels + 0.5) // EDGE_PX).astype(np.int64).T
    inverse = np.zeros(shape, np.float32)
    np.maximum.at(inverse, (row, column), (1.0 / depths_m).astype(np.float32))
    nearest = cv2.dilate(inverse, np.ones((3, 3), np.uint8))
    return nearest[row, column] * depths_m > EDGE_RATIO


def _texture(image: PosedImage) -> NDArray[np.float32]:
    """(H, W) how well a pixel can be told from all its neighbours (Shi and Tomasi)."""
    grey = cv2.cvtColor(read_image(image.path, image.camera), cv2.COLOR_RGB2GRAY)
    return cv2.cornerMinEigenVal(grey, CORNER_WINDOW_PX)


def _cells(pixels: Matrix, depths_m: Matrix, camera: Camera, count: int) -> NDArray[np.int64]:
    side_px = np.sqrt(camera.width * camera.height / count)
    column, row = (pixels // side_px).astype(np.int64).T
    octave = np.log2(np.maximum(depths_m, 1.0)).astype(np.int64)
    columns = int(camera.width // side_px) + 1
    return (octave * count + row) * columns + column


def _choose(view: _CloudView, chosen: NDArray[np.bool_], plain_share: float) -> Index:
    """The points of most texture for the cells that have no chosen point yet."""
    if not len(view.points):
        return view.points
    taken = view.cell[chosen[view.points]]
    textured = view.interest > np.quantile(view.interest, plain_share)
    candidates = np.flatnonzero(textured & ~np.isin(view.cell, taken))
    best = _rank(view.cell[candidates], view.interest[candidates]) == 0
    return view.points[candidates[best]]


def _keep_best(view: _CloudView, view_counts: NDArray[np.int64]) -> _CloudView:
    """Of the chosen points in each cell, those that most images see.

    view_counts: (P,) of all points, 0 of those that are not chosen. What fills the image of a near
    camera shrinks to a spot in that of a far one, which needs no more points than other spots.
    """
    mine = np.flatnonzero(view_counts[view.points])
    kept = mine[_rank(view.cell[mine], view_counts[view.points[mine]]) < PER_CELL]
    kept_ones = {f: getattr(view, f)[kept] for f in ("points", "pixels", "interest", "cell")}
    return replace(view, **kept_ones)


def _rank(cell: NDArray[np.int64], worth: NDArray) -> NDArray[np.intp]:
    """(N,) how many points of the same cell are worth more; of equals the first is the best."""
    order = np.lexsort((-worth, cell))
    ordered = cell[order]
    rank = np.empty(len(cell), np.intp)
    rank[order] = np.arange(len(cell)) - np.searchsorted(ordered, ordered)
    return rank


def _model(
    images: Sequence[PosedImage], views: Sequence[_CloudView], chosen: Index, points_map: Matrix
) -> ColmapModel:
    cameras: list[Camera] = []
    colmap_images = []
    for number, (image, view) in enumerate(zip(images, views, strict=True)):
        camera_id = next((i for i, c in enumerate(cameras) if _same(c, image.camera)), len(cameras))
        if camera_id == len(cameras):
            cameras.append(image.camera)
        colmap_images.append(
            ColmapImage(
                image_id=number,
                name=image.name,
                camera_id=camera_id,
                T_cam_world=se3.inverse(image.T_map_cam),
                pixels=view.pixels,
                point_ids=np.searchsorted(chosen, view.points),
                depth_m=view.depth_m,
            )
        )
    return ColmapModel(
        cameras=dict(enumerate(cameras)),
        images=tuple(colmap_images),
        unregistered=(),
        point_ids=np.arange(len(chosen)),
        points_world=points_map[chosen],
        errors_px=np.full(len(chosen), -1.0),
    )


def _same(a: Camera, b: Camera) -> bool:
    fields = ("size", "focal", "center", "distortion")
    return a is b or (
        a.model == b.model and all(getattr(a, f).equal(getattr(b, f)) for f in fields)
    )
