"""Synthesize a second view of a photo: invent depth on the query's grid, sample the photo there.

As the depth belongs to the query, each of its pixels has a 3D point and a place in the photo: the
rendered view has no holes, and correspondences are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose, so3_exp
from pixloc_ros.training.data_config import PhotosConfig
from pixloc_ros.training.draws import RandomDraws
from pixloc_ros.training.pairs import pinhole

WALLS = 3
ROUGHNESS = 0.08  # of the logarithm of the depth
INVERSE_DEPTHS = (0.08, 2.5)  # smallest and largest, relative to the median
CENTER_SPREAD = 0.03  # of the principal point, relative to the width
Size = tuple[int, int]  # width and height


@dataclass(frozen=True, slots=True)
class Crop:
    """Place of a view in its photo: photo = origin + axes @ (pixel - middle), all in pixels.

    axes: (B, 2, 2).
    origin: (B, 2).
    middle: (2,) of the view.
    """

    axes: Tensor
    origin: Tensor
    middle: Tensor

    def in_photo(self, pixels: Tensor) -> Tensor:
        """Convert pixels (B, ..., 2) of the view to pixels of the photo."""
        flat = (pixels - self.middle).flatten(1, -2)
        return (flat @ self.axes.mT + self.origin[:, None]).view_as(pixels)


def draw_camera(count: int, size: Size, config: PhotosConfig, draws: RandomDraws) -> Camera:
    """Draw pinhole cameras (count,), each for both views of a pair."""
    focal = size[0] * draws.uniform(*config.focal, count, 1).expand(count, 2)
    spread = CENTER_SPREAD * size[0] * draws.uniform(-1.0, 1.0, count, 2)
    return pinhole(size, focal, spread + focal.new_tensor([size[0] - 1, size[1] - 1]) / 2)


def draw_crop(
    count: int, size: Size, photo: Size, config: PhotosConfig, draws: RandomDraws
) -> Crop:
    """Draw the place of reference views in photos: scaled, shifted, rolled, mirrored."""
    share = draws.uniform(*config.crop, count)
    factor = share * min(photo[0] / size[0], photo[1] / size[1])
    roll = torch.deg2rad(draws.uniform(-config.max_roll_deg, config.max_roll_deg, count))
    mirror = draws.uniform(-1.0, 1.0, count).sign()
    cos, sin = factor * torch.cos(roll), factor * torch.sin(roll)
    axes = torch.stack([cos * mirror, -sin, sin * mirror, cos], -1).unflatten(-1, (2, 2))
    view, whole = (cos.new_tensor([w - 1, h - 1]) for w, h in (size, photo))
    free = (whole - factor[:, None] * view).clamp(min=0)
    origin = whole / 2 + free * draws.uniform(-0.5, 0.5, count, 2)
    return Crop(axes, origin, view / 2)


def draw_inverse_depth(count: int, size: Size, depth_m: Tensor, draws: RandomDraws) -> Tensor:
    """Draw scenes of back wall, side walls and ground: (count, 1, H, W) in 1/m.

    depth_m: (count,) median depth.
    """
    width, height = size
    x = torch.linspace(-1, 1, width, device=draws.device)
    y = torch.linspace(-1, 1, height, device=draws.device)[:, None]

    def plane(offset: tuple[float, float], along_x: float, along_y: Tensor) -> Tensor:
        slope_x = along_x * draws.normal(count, 1, 1)
        return draws.uniform(*offset, count, 1, 1) + slope_x * x + along_y * y

    tilt = 0.15 * draws.normal(count, 1, 1)
    surface = plane((0.2, 0.8), 0.1, tilt)
    for _ in range(WALLS):
        surface = torch.maximum(surface, plane((-0.8, 0.7), 1.2, tilt))
    ground = plane((-0.8, 0.4), 0.1, draws.uniform(0.6, 2.5, count, 1, 1))
    surface = torch.maximum(surface, ground)[:, None]
    surface = surface.clamp(min=1e-3) * torch.exp(ROUGHNESS * _rough(count, size, draws))
    median = surface.flatten(1).median(1).values[:, None, None, None]
    return (surface / median).clamp(*INVERSE_DEPTHS) / depth_m[:, None, None, None]


def draw_pose(depth_m: Tensor, config: PhotosConfig, draws: RandomDraws) -> Pose:
    """Draw T_reference_query (B,) for scenes of median depth (B,)."""
    count = len(depth_m)
    angle = torch.deg2rad(draws.uniform(0.0, config.max_turn_deg, count, 1))
    distance_m = depth_m[:, None] * draws.uniform(0.0, config.max_shift, count, 1)
    R = so3_exp(angle * draws.directions(count))
    return Pose(R, distance_m * draws.directions(count))


def lift(pixels: Tensor, inverse_depth: Tensor, camera: Camera) -> Tensor:
    """Return points (B, N, 3) of a pinhole's pixels (B, N, 2) with inverse depths (B, N)."""
    rays = (pixels - camera.center[:, None]) / camera.focal[:, None]
    return functional.pad(rays, (0, 1), value=1.0) / inverse_depth[..., None]


def pixel_grid(size: Size, step: int, device: torch.device) -> Tensor:
    """Return every step-th pixel of an image, (H / step, W / step, 2)."""
    y, x = (torch.arange(0, n, step, device=device, dtype=torch.float32) for n in size[::-1])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def sample(images: Tensor, pixels: Tensor) -> Tensor:
    """Read images (B, C, H, W) bilinearly at pixels (B, ..., 2); mirrored outside: (B, C, ...)."""
    height, width = images.shape[-2:]
    unit = 2 * pixels / pixels.new_tensor([width - 1, height - 1]) - 1
    grid = unit.flatten(1, -2)[:, None]
    values = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    return values[:, :, 0].unflatten(-1, pixels.shape[1:-1])


def _rough(count: int, size: Size, draws: RandomDraws) -> Tensor:
    """Return noise (count, 1, H, W) on two scales."""
    fields = [draws.normal(count, 1, *cells) for cells in ((4, 5), (12, 16))]
    large, small = (
        functional.interpolate(f, size=size[::-1], mode="bicubic", align_corners=True)
        for f in fields
    )
    return large + 0.3 * small
