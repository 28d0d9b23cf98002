"""Pairs from any photos; parallax.py synthesizes the second view of each."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training import parallax
from pixloc_ros.training.augmentation import augment
from pixloc_ros.training.data_config import AugmentationConfig, PhotosConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.pairs import PairBatch
from pixloc_ros.training.photo_store import load_photos

CELL_PX = 4  # side of a cell of the query, each of which offers one point
CONTRAST_WINDOW_PX = 9
FLAT_SHARE = 0.1  # least weight of flat parts, relative to the mean weight
FRONT = 0.8  # least inverse depth of a visible point, relative to the largest around its cell


class PhotoSource:
    """A PairSource with synthetic parallax."""

    def __init__(
        self,
        config: PhotosConfig,
        augmentation: AugmentationConfig,
        size: tuple[int, int],
        device: torch.device | str,
        progress: Progress = silent,
    ) -> None:
        store = load_photos(config, size[0] / size[1], device, progress)
        self.name = f"photos {config.path.name}"
        self.skipped = store.skipped
        self._photos = store.photos
        self._config = config
        self._augmentation = augmentation
        self._size = size

    def __len__(self) -> int:
        return len(self._photos)

    def sample(self, count: int, generator: torch.Generator) -> PairBatch:
        """Draw pairs as PairSource.sample does; photos may repeat."""
        draws = RandomDraws(generator, self._photos.device)
        index = draws.integers(len(self), count).to(draws.device)
        pairs = invent_views(self._photos[index].float() / 255, self._size, self._config, draws)
        both = augment(torch.cat([pairs.reference_rgb, pairs.query_rgb]), self._augmentation, draws)
        return replace(pairs, reference_rgb=both[:count], query_rgb=both[count:])


def invent_views(
    photos: Tensor, size: tuple[int, int], config: PhotosConfig, draws: RandomDraws
) -> PairBatch:
    """Make one pair of each photo (B, 3, H, W) in 0..1, without augmentation."""
    count = len(photos)
    camera = parallax.draw_camera(count, size, config, draws)
    photo_size = (photos.shape[-1], photos.shape[-2])
    crop = parallax.draw_crop(count, size, photo_size, config, draws)
    low, high = (torch.tensor(d).log().item() for d in config.depth_m)
    depth_m = draws.uniform(low, high, count).exp()
    inverse_depth = parallax.draw_inverse_depth(count, size, depth_m, draws)
    T_reference_query = parallax.draw_pose(depth_m, config, draws)

    pixels = parallax.pixel_grid(size, 1, draws.device).expand(count, -1, -1, -1)
    reference = parallax.sample(photos, crop.in_photo(pixels))
    in_query = parallax.lift(pixels.flatten(1, 2), inverse_depth.flatten(1), camera)
    in_reference = T_reference_query.transform(in_query)
    warped, _ = camera.project(in_reference)
    query = parallax.sample(photos, crop.in_photo(warped.view_as(pixels)))

    points, visible = _choose(query, inverse_depth, camera, T_reference_query, config, draws)
    T_query_reference = T_reference_query.inverse()
    return PairBatch(reference, query, camera, camera, T_query_reference, points, visible)


def _choose(
    query: Tensor,
    inverse_depth: Tensor,
    camera: Camera,
    T_reference_query: Pose,
    config: PhotosConfig,
    draws: RandomDraws,
) -> tuple[Tensor, Tensor]:
    """Choose points (B, N, 3) with contrast in the reference frame; tell which are visible."""
    size = (query.shape[-1], query.shape[-2])
    corners = parallax.pixel_grid(size, CELL_PX, draws.device).flatten(0, 1)
    pixels = corners + draws.uniform(0.0, CELL_PX - 1.0, len(query), *corners.shape)
    pixels = torch.minimum(pixels, pixels.new_tensor(size) - 1)
    depths = parallax.sample(inverse_depth, pixels)[:, 0]
    points = T_reference_query.transform(parallax.lift(pixels, depths, camera))
    visible = in_front(points, camera)
    weights = parallax.sample(contrast(query), pixels)[:, 0]
    weights = (weights + FLAT_SHARE * weights.mean(1, keepdim=True) + 1e-6) * (visible + 1e-9)
    chosen = draws.weighted(weights, min(config.points, weights.shape[1]))
    points = points.gather(1, chosen[..., None].expand(-1, -1, 3))
    return points, visible.gather(1, chosen)


def in_front(points_cam: Tensor, camera: Camera) -> Tensor:
    """Return which points (B, N, 3) that sample a surface are in the image and not hidden (B, N).

    Points beside something much nearer do not count as visible either, because features mix both.
    """
    pixels, in_view = camera.project(points_cam)
    columns, rows = (int(n) // CELL_PX + 1 for n in camera.size[0])
    at = (pixels.nan_to_num().round() / CELL_PX).long()
    cell = at[..., 1].clamp(0, rows - 1) * columns + at[..., 0].clamp(0, columns - 1)
    nearness = torch.where(in_view, points_cam[..., 2].clamp(min=1e-6).reciprocal(), 0.0)
    nearest = nearness.new_zeros(len(cell), rows * columns)
    nearest = nearest.scatter_reduce(1, cell, nearness, "amax").view(-1, 1, rows, columns)
    around = functional.max_pool2d(nearest, 3, 1, 1).flatten(1)
    return in_view & (nearness >= FRONT * around.gather(1, cell))


def contrast(images: Tensor) -> Tensor:
    """Return the standard deviation (B, 1, H, W) of brightness around each pixel."""
    brightness = images.mean(1, keepdim=True)
    window, around = CONTRAST_WINDOW_PX, CONTRAST_WINDOW_PX // 2

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, window, 1, around, count_include_pad=False)

    return (mean(brightness**2) - mean(brightness) ** 2).clamp(min=0).sqrt()
