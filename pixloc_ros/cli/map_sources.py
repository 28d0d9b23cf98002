"""The options of `pixloc map build` that say what a map is built from, and where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from pixloc_ros.cli.numbers import parse_mount, parse_numbers
from pixloc_ros.errors import MapError
from pixloc_ros.maps.build.builder import BuildOptions, MapSource
from pixloc_ros.maps.build.sources import (
    TOLERANCE_M,
    UNITS_PER_M,
    VOXEL_M,
    ColmapSource,
    DepthImagesSource,
    LidarSource,
    MeshSource,
    PosedImagesSource,
    Positions,
)
from pixloc_ros.maps.datum import AnyDatum, Datum, GridDatum


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Files and folders of one source of a map."""

    images: Annotated[
        Path | None, typer.Option(help="folder that the image names are relative to")
    ] = None
    bag: Annotated[
        list[Path] | None,
        typer.Option(
            help="recorded drive: rosbag2 folder, .mcap or .db3 with images, camera_info, odometry "
            "and GNSS fixes, or only some of them; repeatable"
        ),
    ] = None
    colmap: Annotated[
        Path | None, typer.Option(help="folder of the COLMAP model, .bin or .txt")
    ] = None
    posed_images: Annotated[
        Path | None,
        typer.Option(
            help="instead of a model: meta.json, a TUM file, poses by image name, "
            "or a folder of NAME.pose.txt"
        ),
    ] = None
    cloud: Annotated[
        Path | None, typer.Option(help="point cloud seen by the posed images: PLY, PCD, LAS or LAZ")
    ] = None
    mesh: Annotated[
        Path | None, typer.Option(help="mesh seen by the posed images: PLY, OBJ, STL or glTF")
    ] = None
    depth: Annotated[
        Path | None, typer.Option(help="folder with a depth image for each posed image")
    ] = None
    depth_scale: Annotated[
        float, typer.Option(min=1e-6, help="units of the depth images per metre")
    ] = UNITS_PER_M
    voxel: Annotated[
        float,
        typer.Option(
            min=1e-3,
            help="metres between neighbouring points taken from a cloud, mesh or depth images",
        ),
    ] = VOXEL_M
    intrinsics: Annotated[
        str,
        typer.Option(
            help="FX,FY,CX,CY[,K1,K2,P1,P2] in pixels, if the poses come without intrinsics"
        ),
    ] = ""
    align_to: Annotated[
        Path | None,
        typer.Option(
            help="positions of the model's images, by which it is scaled and placed: "
            "meta.json, poses or GNSS fixes by image name"
        ),
    ] = None
    align_tolerance: Annotated[
        float, typer.Option(min=0, help="largest error of a good position, in metres")
    ] = TOLERANCE_M
    antenna: Annotated[
        str,
        typer.Option(help="X,Y,Z in base_link of the antenna whose fixes are given by --align-to"),
    ] = ""

    def check(self) -> None:
        """Raise MapError unless the options name exactly one source."""
        if sum(map(bool, (self.bag, self.colmap, self.posed_images))) != 1:
            raise MapError(
                "give one of --bag, --colmap and --posed-images (with or without --cloud)"
            )
        surfaces = {"--cloud": self.cloud, "--mesh": self.mesh, "--depth": self.depth}
        given = [name for name, path in surfaces.items() if path is not None]
        if given and self.posed_images is None:
            raise MapError(f"{given[0]} needs --posed-images, whose images the features come from")
        if len(given) > 1:
            raise MapError(f"{' and '.join(given)} are two sources of points; give one")
        if self.align_to is not None and self.colmap is None:
            raise MapError("--align-to is for COLMAP models; posed images have positions already")

    def source(self) -> MapSource:
        """Return the model or the posed images. Raises MapError without a folder of images."""
        if self.images is None:
            raise MapError("--images is missing: the folder that the image names are relative to")
        if self.colmap is not None:
            return ColmapSource(
                model_dir=self.colmap, images=self.images, positions=self._positions()
            )
        assert self.posed_images is not None
        return self._posed_source(
            {"poses": self.posed_images, "images": self.images, "intrinsics": self.intrinsics}
        )

    def _posed_source(self, posed: dict[str, Any]) -> PosedImagesSource:
        if self.cloud is not None:
            return LidarSource(**posed, cloud=self.cloud, voxel_m=self.voxel)
        if self.mesh is not None:
            return MeshSource(**posed, mesh=self.mesh, voxel_m=self.voxel)
        if self.depth is not None:
            return DepthImagesSource(
                **posed, depth=self.depth, units_per_m=self.depth_scale, voxel_m=self.voxel
            )
        return PosedImagesSource(**posed)

    def _positions(self) -> Positions | None:
        if self.align_to is None:
            return None
        if not self.antenna:
            return Positions(self.align_to, self.align_tolerance)
        x, y, z = parse_numbers("--antenna", self.antenna, "X,Y,Z in metres", "0.4,0,1.9")
        return Positions(self.align_to, self.align_tolerance, (x, y, z))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOptions:
    """The map's axes, its place on Earth, and the place of the mapping camera."""

    axes: Annotated[
        Literal["keep", "optical_to_ros"],
        typer.Option(
            help="optical_to_ros turns a world with x right, y down, z forward into one with z up"
        ),
    ] = BuildOptions().axes
    datum: Annotated[
        str,
        typer.Option(
            help="LAT,LON,ALT,YAW of the map's origin: degrees, metres, angle of x from east"
        ),
    ] = ""
    crs: Annotated[
        str,
        typer.Option(
            help="CODE[,E,N,ALT]: a projected frame such as EPSG:25832, and the map's origin there"
        ),
    ] = ""
    camera_mount: Annotated[
        str, typer.Option(help="X,Y,Z,QX,QY,QZ,QW: pose of the mapping camera in base_link")
    ] = ""

    def parse_datum(self) -> AnyDatum | None:
        """Return where the map's origin is. Raises MapError for options that contradict."""
        if self.datum and self.crs:
            raise MapError("--datum and --crs both tell where the map is on Earth: give one")
        if self.crs and self.axes != "keep":
            raise MapError("--crs means that x is east, y north and z up: leave out --axes")
        if self.crs:
            return GridDatum.parse(self.crs)
        return Datum.parse(self.datum) if self.datum else None

    def parse_mount(self) -> np.ndarray | None:
        """Return T_base_cam (4, 4). Raises ConfigError for what is no pose."""
        return parse_mount(self.camera_mount) if self.camera_mount else None
