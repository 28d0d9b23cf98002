"""Settings of training data and of augmentation: every default, in one place."""

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
    """How often images are changed by each effect of light, weather, lens or sensor."""

    enabled: bool = Field(default=True, description="false: images stay as they are (ablation)")
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
    noise: Probability = Field(default=0.5, description="photon and sensor noise")
    darkening: Shares = Field(
        default=(0.5, 0.92), description="share of the light that is lost at night"
    )
    gamma_sigma: float = Field(
        default=0.4, ge=0, description="standard deviation of the logarithm of gamma"
    )
    max_motion_px: float = Field(
        default=24.0, gt=0, description="length of the longest motion blur"
    )
    max_defocus_px: float = Field(
        default=5.0, gt=0, description="radius of the largest disc of confusion"
    )
    max_noise: float = Field(
        default=0.08, ge=0, description="standard deviation, for values in 0..1"
    )
    occluder_share: Shares = Field(
        default=(0.1, 0.4), description="side of an occluder, as a share of the image's"
    )


class _SourceConfig(Section):
    """Settings common to all sources."""

    weight: float = Field(default=1.0, gt=0, description="relative share in the mixture")
    points: int = Field(default=384, ge=16, description="3D points per pair")


class PhotosConfig(_SourceConfig):
    """Any photos; the second view is synthesized."""

    kind: Literal["photos"] = "photos"
    path: Path = Field(description="folder, or .npz of JPEG bytes: arrays data and off")
    max_gib: float = Field(default=4.0, gt=0, description="memory for photos on the device")
    stored_width_px: int = Field(default=528, ge=64, description="width at which photos are stored")
    min_side_px: int = Field(default=160, ge=16, description="smaller photos are skipped")
    max_turn_deg: float = Field(
        default=10.0, ge=0, description="largest rotation between the two views"
    )
    max_shift: float = Field(
        default=0.28,
        ge=0,
        description="largest translation between the two views, as a share of the median depth",
    )
    max_roll_deg: float = Field(
        default=9.0, ge=0, description="largest roll of both views relative to the photo"
    )
    focal: Range = Field(default=(0.6, 1.4), description="focal length as a share of the width")
    crop: Shares = Field(default=(0.4, 1.0), description="share of the photo that a view covers")
    depth_m: Range = Field(default=(4.0, 25.0), description="median depth of a scene")


class ViewsConfig(_SourceConfig):
    """Images with poses and 3D points; parallax and occlusion are real."""

    min_shared: int = Field(default=60, ge=1, description="points a pair must share")
    overlap: Shares = Field(
        default=(0.2, 1.0), description="share of the reference's points that the query observes"
    )
    max_turn_deg: float = Field(
        default=45.0, gt=0, description="largest rotation between the two views"
    )
    max_baseline: float | None = Field(
        default=None,
        gt=0,
        description="largest distance between the two cameras, in units of the model",
    )
    max_error_px: float = Field(
        default=2.0, gt=0, description="largest reprojection error of the points used"
    )
    pairs_per_scene: int = Field(
        default=500,
        ge=1,
        description="scenes with more pairs are not drawn more often than scenes with this many",
    )
    crop: Shares = Field(default=(0.6, 1.0), description="share of the image that a view covers")
    cache_gib: float = Field(default=4.0, ge=0, description="memory for decoded images")


class ColmapConfig(ViewsConfig):
    """A COLMAP model and its images."""

    kind: Literal["colmap"] = "colmap"
    path: Path = Field(description="folder of cameras, images and points3D (bin or txt)")
    images: Path = Field(description="folder of the images")


class PosedConfig(ViewsConfig):
    """Posed images without 3D points, which are triangulated when training starts."""

    kind: Literal["posed"] = "posed"
    path: Path = Field(description="meta.json of the images")
    work: Path | None = Field(
        default=None, description="folder that keeps keypoints and matches for the next time"
    )
    images: Path = Field(description="folder of the images")


class LidarConfig(ViewsConfig):
    """A point cloud and posed images in its frame."""

    kind: Literal["lidar"] = "lidar"
    path: Path = Field(description="cloud: PLY, PCD or LAS")
    poses: Path = Field(description="meta.json of the images")
    images: Path = Field(description="folder of the images")
    voxel_m: float = Field(
        default=0.1, gt=0, description="of several points in one voxel, one is kept"
    )
    max_range_m: float = Field(default=60.0, gt=0, description="range of the farthest points used")


class MegaDepthConfig(ViewsConfig):
    """MegaDepth, used as for the training of PixLoc."""

    kind: Literal["megadepth"] = "megadepth"
    path: Path = Field(description="root folder of the data set")
    scenes: tuple[str, ...] = Field(
        default=(), description="names of the scenes to use; if empty, all that are present"
    )
    scene_list: Path | None = Field(
        default=None,
        description="instead of scenes: a file of their names, such as PixLoc's train_scenes.txt",
    )
    scene_info: Path | None = Field(
        default=None, description="folder of D2-Net's SCENE.npz, from which overlaps are read"
    )
    depth: Path | None = Field(
        default=None,
        description="folder MegaDepth_v1 of depth maps, from which points are drawn instead",
    )
    min_side_px: int = Field(default=480, ge=16, description="smaller images are skipped")


class CmuConfig(ViewsConfig):
    """Extended CMU Seasons, used as for the training of PixLoc."""

    kind: Literal["cmu"] = "cmu"
    path: Path = Field(description="folder of intrinsics.txt and slice2, slice3, ...")
    slices: tuple[int, ...] = Field(
        default=(), description="numbers of the slices to use; if empty, all that are present"
    )
    model: str = Field(default="sparse", description="COLMAP model in the folder of a slice")


SourceConfig = Annotated[
    PhotosConfig | ColmapConfig | PosedConfig | LidarConfig | MegaDepthConfig | CmuConfig,
    Field(discriminator="kind"),
]
