"""Where training pairs come from and how their light is changed: the defaults, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pixloc_ros.config import Section


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound comes first, got {bounds[0]:g}, {bounds[1]:g}")
    return bounds


Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]


class AugmentationConfig(Section):
    """Share of the images that each change of light, weather, lens or sensor befalls."""

    enabled: bool = Field(default=True, description="false: images as they are (ablation)")
    illumination: Probability = Field(default=0.5, description="smooth field of light")
    shadows: Probability = Field(default=0.3, description="hard shadows")
    snow: Probability = Field(default=0.08, description="lying and falling snow")
    fog: Probability = Field(default=0.2, description="fog and haze")
    night: Probability = Field(default=0.2, description="darkness, tint and lamps")
    occluders: Probability = Field(default=0.3, description="pieces of another image")
    rain: Probability = Field(default=0.12, description="drops on the lens")
    motion_blur: Probability = Field(default=0.2, description="along a line")
    defocus: Probability = Field(default=0.15, description="a disc of confusion")
    soft: Probability = Field(default=0.2, description="Gaussian blur")
    tone: Probability = Field(default=0.15, description="non-monotone tone curve")
    colour: Probability = Field(default=0.9, description="white balance, gamma, contrast, ...")
    noise: Probability = Field(default=0.5, description="of photons and electronics")
    darkening: Shares = Field(
        default=(0.5, 0.92), description="share of the light that night takes"
    )
    gamma_sigma: float = Field(default=0.4, ge=0, description="of the exponent's logarithm")
    max_motion_px: float = Field(default=24.0, gt=0, description="longest motion blur")
    max_defocus_px: float = Field(default=5.0, gt=0, description="largest disc's radius")
    max_noise: float = Field(default=0.08, ge=0, description="standard deviation, of range 0..1")
    occluder_share: Shares = Field(
        default=(0.1, 0.4), description="side of a piece, of the image's"
    )


class _SourceConfig(Section):
    """What all sources have."""

    weight: float = Field(default=1.0, gt=0, description="share in the mixture, relative")
    points: int = Field(default=384, ge=16, description="3D points of a pair")


class PhotosConfig(_SourceConfig):
    """Any photos; parallax is invented."""

    kind: Literal["photos"] = "photos"
    path: Path = Field(description="folder, or .npz of JPEG bytes: arrays data and off")
    max_gib: float = Field(default=4.0, gt=0, description="memory for photos on the device")
    stored_width_px: int = Field(default=528, ge=64, description="width photos are kept in")
    min_side_px: int = Field(default=160, ge=16, description="smaller photos are skipped")
    max_turn_deg: float = Field(default=10.0, ge=0, description="between the two views")
    max_shift: float = Field(default=0.28, ge=0, description="of the median depth")
    max_roll_deg: float = Field(default=9.0, ge=0, description="of both views in the photo")
    focal: Range = Field(default=(0.6, 1.4), description="of the width")
    crop: Shares = Field(default=(0.4, 1.0), description="of the photo")
    depth_m: Range = Field(default=(4.0, 25.0), description="median of a scene")


class ViewsConfig(_SourceConfig):
    """Images with poses and 3D points; parallax and occlusion are real."""

    min_shared: int = Field(default=60, ge=1, description="points a pair must share")
    overlap: Shares = Field(
        default=(0.2, 1.0), description="share of the reference's points seen in the query"
    )
    max_turn_deg: float = Field(default=45.0, gt=0, description="between the two views")
    max_baseline: float | None = Field(
        default=None, gt=0, description="between the two cameras, in units of the model"
    )
    max_error_px: float = Field(default=2.0, gt=0, description="reprojection of points used")
    pairs_per_scene: int = Field(default=500, ge=1, description="scenes of more count as these")
    crop: Shares = Field(default=(0.6, 1.0), description="of the image")
    cache_gib: float = Field(default=4.0, ge=0, description="memory for decoded images")


class ColmapConfig(ViewsConfig):
    """A COLMAP model and its images."""

    kind: Literal["colmap"] = "colmap"
    path: Path = Field(description="folder of cameras, images and points3D (bin or txt)")
    images: Path = Field(description="folder of the images")


class PosedConfig(ViewsConfig):
    """Posed images without 3D points, which are triangulated when training begins."""

    kind: Literal["posed"] = "posed"
    path: Path = Field(description="meta.json of the images")
    work: Path | None = Field(default=None, description="keeps keypoints and matches for next time")
    images: Path = Field(description="folder of the images")


class LidarConfig(ViewsConfig):
    """A point cloud and posed images in its frame."""

    kind: Literal["lidar"] = "lidar"
    path: Path = Field(description="cloud: PLY, PCD or LAS")
    poses: Path = Field(description="meta.json of the images")
    images: Path = Field(description="folder of the images")
    voxel_m: float = Field(default=0.1, gt=0, description="of several points in one, one is kept")
    max_range_m: float = Field(default=60.0, gt=0, description="farthest points used")


class MegaDepthConfig(ViewsConfig):
    """MegaDepth as PixLoc was trained on it."""

    kind: Literal["megadepth"] = "megadepth"
    path: Path = Field(description="root folder of the data set")
    scenes: tuple[str, ...] = Field(default=(), description="all that are there when empty")
    scene_list: Path | None = Field(
        default=None, description="instead: file of their names, as PixLoc's train_scenes.txt"
    )
    scene_info: Path | None = Field(
        default=None, description="folder of D2-Net's SCENE.npz, whose overlap is taken"
    )
    depth: Path | None = Field(
        default=None,
        description="folder MegaDepth_v1 of depth maps, which points are drawn from instead",
    )
    min_side_px: int = Field(default=480, ge=16, description="smaller images are left out")


class CmuConfig(ViewsConfig):
    """Extended CMU Seasons as PixLoc was trained on it."""

    kind: Literal["cmu"] = "cmu"
    path: Path = Field(description="folder of intrinsics.txt and slice2, slice3, ...")
    slices: tuple[int, ...] = Field(default=(), description="all that are there when empty")
    model: str = Field(default="sparse", description="COLMAP model in the folder of a slice")


SourceConfig = Annotated[
    PhotosConfig | ColmapConfig | PosedConfig | LidarConfig | MegaDepthConfig | CmuConfig,
    Field(discriminator="kind"),
]
