"""What `build_map` builds from: one class per kind of input.

A source finds the points of the map and the images that observe them: it answers `model(...)`
with a model in the map's frame. What else is to become a source needs that one method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from pixloc_ros.common.arguments import Arguments
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.builder import BuildContext, BuildOptions
from pixloc_ros.maps.build.depth_images import read_depth_cloud
from pixloc_ros.maps.build.image_positions import align_model
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.build.triangulation import triangulate
from pixloc_ros.maps.files.clouds import read_cloud
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.maps.files.meshes import read_mesh, sample_mesh
from pixloc_ros.maps.files.posed_images import (
    PosedImage,
    PosedImages,
    keyframes,
    map_from_world,
    read_posed_images,
)
from pixloc_ros.maps.files.posed_sequences import read_posed_frames, read_posed_trajectory

NEAREST_DEPTH_M = 0.3  # depth cameras are carried through rooms
VOXEL_M = LidarOptions().voxel_m
UNITS_PER_M = 1000.0  # depth images in millimetres
TOLERANCE_M = 3.0  # GNSS without corrections


@dataclass(frozen=True, slots=True)
class Positions:
    """Where some images of a COLMAP model were taken, to give the model its scale and place."""

    file: str | Path  # meta.json, poses by image name, or fixes `name latitude longitude altitude`
    tolerance_m: float = TOLERANCE_M  # error that good positions stay below
    antenna_base_m: tuple[float, float, float] | None = None  # antenna of the fixes in base_link

    def __post_init__(self) -> None:
        """Raise MapError for a value that cannot be."""
        arguments = Arguments("Positions", MapError)
        arguments.path("file", self.file)
        arguments.positive("tolerance_m", self.tolerance_m)
        antenna = self.antenna_base_m
        fits = antenna is None or np.shape(antenna) == (3,)
        arguments.require(fits, "antenna_base_m", antenna, "three numbers x, y, z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColmapSource:
    """A reconstruction by COLMAP or hloc: a folder with cameras, images and points3D."""

    model_dir: str | Path  # .bin or .txt files
    images: str | Path  # folder that the model's image names start from
    positions: Positions | None = None  # for a model of unknown scale or place

    def __post_init__(self) -> None:
        """Raise MapError for a value that cannot be."""
        arguments = _check_source(self, "model_dir", "images")
        fits = isinstance(self.positions, Positions | None)
        arguments.require(fits, "positions", self.positions, "Positions(file)")

    def model(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, BuildOptions]:
        """Read the model, and place it where positions are given."""
        model = read_model(self.model_dir)
        if self.positions is None:
            return model, options
        if options.axes != "keep":
            raise MapError("positions (--align-to) decide the axes: leave out axes (--axes)")
        model, datum, report = align_model(
            model,
            Path(self.positions.file),
            options.datum,
            self.positions.tolerance_m,
            self._antenna_cam(options.T_base_cam),
        )
        context.report(str(report))
        return model, replace(options, datum=datum)

    def _antenna_cam(self, T_base_cam: Matrix | None) -> Matrix | None:
        """(3,) the antenna in the camera's frame; None where the positions name none."""
        assert self.positions is not None
        if self.positions.antenna_base_m is None:
            return None
        if T_base_cam is None:
            raise MapError(
                "the antenna (--antenna) is in base_link: give --camera-mount (T_base_cam)"
            )
        return se3.transform(se3.inverse(T_base_cam), np.array(self.positions.antenna_base_m))


@dataclass(frozen=True, slots=True, kw_only=True)
class PosedImagesSource:
    """Images whose poses are known; their points are triangulated (needs pycolmap)."""

    _paths: ClassVar[tuple[str, ...]] = ()  # names of further files
    poses: str | Path  # meta.json, a TUM file, poses by image name, or a folder of NAME.pose.txt
    images: str | Path  # folder that image names start from
    intrinsics: str = ""  # "FX,FY,CX,CY[,K1,K2,P1,P2]" for poses that come without

    def __post_init__(self) -> None:
        """Raise MapError for a value that cannot be."""
        arguments = _check_source(self, "poses", "images", *self._paths)
        text = "text: FX,FY,CX,CY"
        arguments.require(isinstance(self.intrinsics, str), "intrinsics", self.intrinsics, text)
        for name in ("voxel_m", "units_per_m"):
            if hasattr(self, name):
                arguments.positive(name, getattr(self, name))

    def model(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, BuildOptions]:
        """Read the images' poses, and find the points that they see."""
        posed, options_left = self.read(options, context)
        model, report = self._model_of(posed, options, context)
        context.report(str(report))
        return model, options_left

    def read(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[list[PosedImage], BuildOptions]:
        """Read every keyframe_step-th posed image in map axes.

        The options come back without what is done by then: axes and keyframe step.
        """
        drive = self._read_drive(options, context)
        posed = keyframes(drive, Path(self.images))[:: options.keyframe_step]
        mount = options.T_base_cam if options.T_base_cam is not None else _known_mount(drive)
        return posed, replace(options, keyframe_step=1, axes="keep", T_base_cam=mount)

    def _read_drive(self, options: BuildOptions, context: BuildContext) -> PosedImages:
        poses, images = Path(self.poses), Path(self.images)
        if poses.suffix == ".json":
            return read_posed_images(poses, images, options.axes)
        if poses.is_dir():
            drive, lost = read_posed_frames(poses, images, self.intrinsics)
            if lost:
                context.report(f"{len(lost)} frames have no finite pose, the first is {lost[0]}")
        else:
            drive = read_posed_trajectory(poses, images, self.intrinsics, options.T_base_cam)
        return replace(drive, T_map_base=options.T_map_world @ drive.T_map_base)

    def _model_of(
        self, posed: list[PosedImage], options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, object]:
        """The model of these images, and a report whose str is one line."""
        return triangulate(posed, context.progress, context.work)

    def _map_from_world(self, options: BuildOptions) -> Matrix:
        """What reading the poses does to their world, for a cloud in the same world."""
        if Path(self.poses).suffix == ".json":
            return map_from_world(Path(self.poses), options.axes)
        return options.T_map_world


@dataclass(frozen=True, slots=True, kw_only=True)
class LidarSource(PosedImagesSource):
    """A point cloud, and posed images that see it; both are in one frame."""

    _paths: ClassVar[tuple[str, ...]] = ("cloud",)
    cloud: str | Path  # PLY, PCD, LAS or LAZ
    voxel_m: float = VOXEL_M  # of several points in one voxel, one is kept

    def _model_of(
        self, posed: list[PosedImage], options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, object]:
        points = se3.transform(self._map_from_world(options), read_cloud(self.cloud))
        return model_from_cloud(points, posed, LidarOptions(voxel_m=self.voxel_m), context.progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSource(PosedImagesSource):
    """A surface mesh, and posed images that see it; both are in one frame."""

    _paths: ClassVar[tuple[str, ...]] = ("mesh",)
    mesh: str | Path  # PLY, OBJ, STL or glTF
    voxel_m: float = VOXEL_M  # distance between points on the mesh

    def _model_of(
        self, posed: list[PosedImage], options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, object]:
        mesh = read_mesh(self.mesh).moved(self._map_from_world(options))
        points, lidar = sample_mesh(mesh, self.voxel_m, self.mesh), LidarOptions(self.voxel_m)
        return model_from_cloud(points, posed, lidar, context.progress, mesh)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthImagesSource(PosedImagesSource):
    """Posed images with a depth image beside each."""

    _paths: ClassVar[tuple[str, ...]] = ("depth",)
    depth: str | Path  # folder of 16-bit or float images, named as the images are
    units_per_m: float = UNITS_PER_M  # of the depth images
    voxel_m: float = VOXEL_M

    def _model_of(
        self, posed: list[PosedImage], options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, object]:
        options_ = LidarOptions(voxel_m=self.voxel_m, min_range_m=NEAREST_DEPTH_M)
        points = read_depth_cloud(
            posed,
            self.depth,
            self.units_per_m,
            options_.max_range_m,
            self.voxel_m,
            context.progress,
        )
        return model_from_cloud(points, posed, options_, context.progress)


def _known_mount(drive: PosedImages) -> Matrix | None:
    """T_base_cam, unless it is what readers assume where nothing is known."""
    assumed = (np.eye(4), se3.base_from_optical())
    return None if any(np.allclose(drive.T_base_cam, T) for T in assumed) else drive.T_base_cam


def _check_source(source: object, *paths: str) -> Arguments:
    """Raise MapError for an attribute that is no path; return the means to check the others."""
    arguments = Arguments(type(source).__name__, MapError)
    for name in paths:
        arguments.path(name, getattr(source, name))
    return arguments
