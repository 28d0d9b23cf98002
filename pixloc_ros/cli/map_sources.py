"""What `pixloc map build` builds from: a COLMAP model, posed images, or a cloud with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from pixloc_ros.cli.map_alignment import align_model
from pixloc_ros.cli.progress import track
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build import writer
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.depth_images import read_depth_cloud
from pixloc_ros.maps.build.lidar import LidarOptions, LidarReport, observe_cloud
from pixloc_ros.maps.build.posed_images import PosedImage
from pixloc_ros.maps.build.triangulation import TriangulationReport, triangulate
from pixloc_ros.maps.build.work_folder import work_folder
from pixloc_ros.maps.files.clouds import read_cloud
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.maps.files.meshes import read_mesh_points
from pixloc_ros.maps.map import Map
from pixloc_ros.replay.posed_frames import read_posed_frames
from pixloc_ros.replay.posed_images import (
    PosedImages,
    keyframes,
    map_from_world,
    read_posed_images,
)
from pixloc_ros.replay.posed_trajectory import read_posed_trajectory

NEAREST_DEPTH_M = 0.3  # depth cameras are carried through rooms


@dataclass(frozen=True, slots=True)
class Sources:
    """Files as the command line names them."""

    images: Path
    colmap: Path | None = None
    posed_images: Path | None = None
    intrinsics: str = ""
    cloud: Path | None = None
    mesh: Path | None = None
    depth: Path | None = None  # folder of depth images
    depth_scale: float = 1000.0  # their units per metre
    voxel_m: float = LidarOptions().voxel_m
    align_to: Path | None = None
    align_tolerance_m: float = 3.0
    antenna_base_m: tuple[float, float, float] | None = None  # of the GNSS receiver in base_link

    def check(self) -> None:
        """Raise MapError unless it is clear what to build from."""
        if (self.colmap is None) == (self.posed_images is None):
            raise MapError("give either --colmap, or --posed-images (with or without --cloud)")
        surfaces = {"--cloud": self.cloud, "--mesh": self.mesh, "--depth": self.depth}
        given = [name for name, path in surfaces.items() if path is not None]
        if given and self.posed_images is None:
            raise MapError(f"{given[0]} needs --posed-images, that tell its reference features")
        if len(given) > 1:
            raise MapError(f"{' and '.join(given)} are two sources of points; give one")
        if self.align_to is not None and self.colmap is None:
            raise MapError("--align-to is for COLMAP models; posed images have their places")


def build(
    sources: Sources, output: Path, extractor: FeatureExtractor, options: BuildOptions
) -> Map:
    """Build a map from whatever was given."""
    sources.check()
    writer.check_output(output, options.overwrite)
    with work_folder(output) as work:
        if sources.colmap is None:
            posed, options_left = read_posed(sources, options)
            model, report = _model(sources, posed, options, work)
            typer.echo(str(report), err=True)
        else:
            model, options_left = _read_colmap(sources, options)
        return build_map(model, sources.images, output, extractor, options_left, track, work)


def _read_colmap(sources: Sources, options: BuildOptions) -> tuple[ColmapModel, BuildOptions]:
    assert sources.colmap is not None
    model = read_model(sources.colmap)
    if sources.align_to is None:
        return model, options
    if options.axes != "keep":
        raise MapError("--align-to tells the axes too: leave out --axes")
    model, datum, report = align_model(
        model,
        sources.align_to,
        options.datum,
        sources.align_tolerance_m,
        _antenna_cam(sources, options),
    )
    typer.echo(str(report), err=True)
    return model, replace(options, datum=datum)


def _antenna_cam(sources: Sources, options: BuildOptions) -> NDArray[np.float64] | None:
    if sources.antenna_base_m is None:
        return None
    if options.T_base_cam is None:
        raise MapError("--antenna is a place in base_link: give --camera-mount too")
    return se3.transform(se3.inverse(options.T_base_cam), np.array(sources.antenna_base_m))


def _model(
    sources: Sources, posed: list[PosedImage], options: BuildOptions, work: Path
) -> tuple[ColmapModel, TriangulationReport | LidarReport]:
    options_ = LidarOptions(voxel_m=sources.voxel_m)
    if sources.depth is not None:
        points = read_depth_cloud(
            posed, sources.depth, sources.depth_scale, options_.max_range_m, options_.voxel_m, track
        )
        return observe_cloud(points, posed, replace(options_, min_range_m=NEAREST_DEPTH_M), track)
    if sources.mesh is not None:
        points = read_mesh_points(sources.mesh, sources.voxel_m)
    elif sources.cloud is not None:
        points = read_cloud(sources.cloud)
    else:
        return triangulate(posed, track, work)
    T_map_world = _map_from_world(sources, options)
    return observe_cloud(se3.transform(T_map_world, points), posed, options_, track)


def _map_from_world(sources: Sources, options: BuildOptions) -> NDArray[np.float64]:
    """What readers of posed images do to their world, for the cloud in the same world."""
    assert sources.posed_images is not None
    if sources.posed_images.suffix == ".json":
        return map_from_world(sources.posed_images, options.axes)
    return options.T_map_world


def read_posed(sources: Sources, options: BuildOptions) -> tuple[list[PosedImage], BuildOptions]:
    """Every keyframe_step-th posed image in map axes, and what is left to do for the builder."""
    assert sources.posed_images is not None
    if sources.posed_images.suffix == ".json":
        drive = read_posed_images(sources.posed_images, sources.images, options.axes)
    else:
        drive = _read_drive(sources, sources.posed_images, options.T_base_cam)
        drive = replace(drive, T_map_base=options.T_map_world @ drive.T_map_base)
    posed = keyframes(drive, sources.images)[:: options.keyframe_step]
    mount = options.T_base_cam if options.T_base_cam is not None else _known_mount(drive)
    return posed, replace(options, keyframe_step=1, axes="keep", T_base_cam=mount)


def _read_drive(
    sources: Sources, poses: Path, T_base_cam: NDArray[np.float64] | None
) -> PosedImages:
    if not poses.is_dir():
        return read_posed_trajectory(poses, sources.images, sources.intrinsics, T_base_cam)
    drive, lost = read_posed_frames(poses, sources.images, sources.intrinsics)
    if lost:
        typer.echo(f"{len(lost)} frames have no finite pose, the first is {lost[0]}", err=True)
    return drive


def _known_mount(drive: PosedImages) -> NDArray[np.float64] | None:
    """T_base_cam, unless it is what readers assume where nothing is known."""
    assumed = (np.eye(4), se3.base_from_optical())
    return None if any(np.allclose(drive.T_base_cam, T) for T in assumed) else drive.T_base_cam
