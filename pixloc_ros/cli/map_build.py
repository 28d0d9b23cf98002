"""`pixloc map build`: turn the options of the command line into a source for `build_map`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from pixloc_ros.cli.map_table import map_table
from pixloc_ros.cli.numbers import parse_mount, parse_numbers
from pixloc_ros.cli.progress import track
from pixloc_ros.common.parallel import Workers
from pixloc_ros.config import FeaturesConfig
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import MAX_SIDE_PX, FeatureExtractor
from pixloc_ros.maps.build.builder import BuildOptions, MapSource, build_map
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
from pixloc_ros.maps.schema import RowType, Storage

DEFAULT = BuildOptions()
NETWORK = FeaturesConfig()


def build(
    output: Annotated[Path, typer.Option(help="map folder to write")],
    images: Annotated[
        Path | None, typer.Option(help="folder that the image names are relative to")
    ] = None,
    bag: Annotated[
        list[Path] | None,
        typer.Option(
            help="recorded drive: rosbag2 folder, .mcap or .db3 with images, camera_info, odometry "
            "and GNSS fixes, or only some of them; repeatable"
        ),
    ] = None,
    colmap: Annotated[
        Path | None, typer.Option(help="folder of the COLMAP model, .bin or .txt")
    ] = None,
    posed_images: Annotated[
        Path | None,
        typer.Option(
            help="instead of a model: meta.json, a TUM file, poses by image name, "
            "or a folder of NAME.pose.txt"
        ),
    ] = None,
    cloud: Annotated[
        Path | None, typer.Option(help="point cloud seen by the posed images: PLY, PCD, LAS or LAZ")
    ] = None,
    mesh: Annotated[
        Path | None, typer.Option(help="mesh seen by the posed images: PLY, OBJ, STL or glTF")
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(help="folder with a depth image for each posed image")
    ] = None,
    depth_scale: Annotated[
        float, typer.Option(min=1e-6, help="units of the depth images per metre")
    ] = UNITS_PER_M,
    voxel: Annotated[
        float,
        typer.Option(
            min=1e-3,
            help="metres between neighbouring points taken from a cloud, mesh or depth images",
        ),
    ] = VOXEL_M,
    intrinsics: Annotated[
        str,
        typer.Option(
            help="FX,FY,CX,CY[,K1,K2,P1,P2] in pixels, if the poses come without intrinsics"
        ),
    ] = "",
    align_to: Annotated[
        Path | None,
        typer.Option(
            help="positions of the model's images, by which it is scaled and placed: "
            "meta.json, poses or GNSS fixes by image name"
        ),
    ] = None,
    align_tolerance: Annotated[
        float, typer.Option(min=0, help="largest error of a good position, in metres")
    ] = TOLERANCE_M,
    antenna: Annotated[
        str,
        typer.Option(help="X,Y,Z in base_link of the antenna whose fixes are given by --align-to"),
    ] = "",
    axes: Annotated[
        Literal["keep", "optical_to_ros"],
        typer.Option(
            help="optical_to_ros turns a world with x right, y down, z forward into one with z up"
        ),
    ] = DEFAULT.axes,
    datum: Annotated[
        str,
        typer.Option(
            help="LAT,LON,ALT,YAW of the map's origin: degrees, metres, angle of x from east"
        ),
    ] = "",
    crs: Annotated[
        str,
        typer.Option(
            help="CODE[,E,N,ALT]: a projected frame such as EPSG:25832, and the map's origin there"
        ),
    ] = "",
    camera_mount: Annotated[
        str, typer.Option(help="X,Y,Z,QX,QY,QZ,QW: pose of the mapping camera in base_link")
    ] = "",
    weights: Annotated[
        str, typer.Option(help="name of packaged weights, or a path")
    ] = NETWORK.weights,
    max_side_px: Annotated[
        int, typer.Option(help="larger images, and later queries, are reduced to this longer side")
    ] = MAX_SIDE_PX,
    features: Annotated[
        Storage,
        typer.Option(help="store the features of each observation, or their average per point"),
    ] = DEFAULT.features,
    rows: Annotated[
        RowType,
        typer.Option(help="number type of stored features; float16 doubles the size of the map"),
    ] = DEFAULT.row_type,
    tile: Annotated[
        float, typer.Option(min=0, help="side of a tile in metres; 0: one tile")
    ] = DEFAULT.tile_m,
    keyframe_step: Annotated[
        int, typer.Option(min=1, help="take every N-th image by name")
    ] = DEFAULT.keyframe_step,
    min_track_length: Annotated[
        int, typer.Option(min=1, help="minimum number of images that observe a point")
    ] = DEFAULT.min_track_length,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    workers: Annotated[
        int, typer.Option(min=1, help="number of processes that extract features")
    ] = 1,
    ray: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="address of a Ray cluster that extracts the features instead"
        ),
    ] = "",
    topic: Annotated[
        list[str] | None,
        typer.Option(help="part=/topic of the bags, e.g. image=/cam0/image_raw; repeatable"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="for bags: the node's YAML file (frames, cameras, antenna)")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="for bags: name=value of a setting of the node or of mapping, as in "
            "mapping.keyframe_spacing_m=2; repeatable",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="for bags: image that is black where the vehicle itself is visible"),
    ] = None,
    odometry: Annotated[bool, typer.Option(help="for bags: use their odometry")] = True,
    fixes: Annotated[bool, typer.Option(help="for bags: use their GNSS fixes")] = True,
    scale_from: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="for bags with neither odometry nor GNSS: straight distance in metres "
            "from the first keyframe to the last",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="for bags: folder of the report; default: OUTPUT_report")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="for bags: write the map even if it is not good")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Build a map: from a recorded drive, from a COLMAP model, or from images with known poses.

    An interrupted build continues when it is started again.

    Example: pixloc map build --bag drive --output my_map
    """
    surfaces = {"--cloud": cloud, "--mesh": mesh, "--depth": depth}
    _check_one_source(bag, colmap, posed_images, surfaces, align_to)
    map_datum = _parse_datum(datum, crs, axes)
    source: MapSource
    if bag:
        from pixloc_ros.cli.map_from_bag import BagBuild  # imported here: matplotlib takes a second

        source = BagBuild(
            bags=bag,
            topics=topic or [],
            config=config,
            settings=settings or [],
            mask=mask,
            odometry=odometry,
            fixes=fixes,
            scale_from_m=scale_from,
            report=report,
            force=force,
        ).source(output, map_datum)
    elif images is None:
        raise MapError("--images is missing: the folder that the image names are relative to")
    elif colmap is not None:
        positions = _positions(align_to, align_tolerance, antenna)
        source = ColmapSource(model_dir=colmap, images=images, positions=positions)
    else:
        assert posed_images is not None
        posed = {"poses": posed_images, "images": images, "intrinsics": intrinsics}
        source = _posed_source(posed, cloud, mesh, depth, depth_scale, voxel)
    options = BuildOptions(
        features=features,
        row_type=rows,
        tile_m=tile,
        min_track_length=min_track_length,
        keyframe_step=keyframe_step,
        axes=axes,
        datum=map_datum,
        T_base_cam=parse_mount(camera_mount) if camera_mount else None,
        overwrite=overwrite,
        workers=Workers(workers, ray),
    )
    extractor = FeatureExtractor(weights, device, max_side_px)
    built = build_map(source, output, options, extractor, track, partial(typer.echo, err=True))
    Console().print(map_table(built, output))


def _check_one_source(
    bags: list[Path] | None,
    colmap: Path | None,
    posed_images: Path | None,
    surfaces: dict[str, Path | None],
    align_to: Path | None,
) -> None:
    """Raise MapError unless the options name exactly one source."""
    if sum(map(bool, (bags, colmap, posed_images))) != 1:
        raise MapError("give one of --bag, --colmap and --posed-images (with or without --cloud)")
    given = [name for name, path in surfaces.items() if path is not None]
    if given and posed_images is None:
        raise MapError(f"{given[0]} needs --posed-images, whose images the features come from")
    if len(given) > 1:
        raise MapError(f"{' and '.join(given)} are two sources of points; give one")
    if align_to is not None and colmap is None:
        raise MapError("--align-to is for COLMAP models; posed images have positions already")


def _posed_source(
    posed: dict[str, Any],
    cloud: Path | None,
    mesh: Path | None,
    depth: Path | None,
    depth_scale: float,
    voxel_m: float,
) -> PosedImagesSource:
    if cloud is not None:
        return LidarSource(**posed, cloud=cloud, voxel_m=voxel_m)
    if mesh is not None:
        return MeshSource(**posed, mesh=mesh, voxel_m=voxel_m)
    if depth is not None:
        return DepthImagesSource(**posed, depth=depth, units_per_m=depth_scale, voxel_m=voxel_m)
    return PosedImagesSource(**posed)


def _positions(file: Path | None, tolerance_m: float, antenna: str) -> Positions | None:
    if file is None:
        return None
    form, example = "X,Y,Z in metres", "0.4,0,1.9"
    numbers = parse_numbers("--antenna", antenna, form, example) if antenna else None
    return Positions(file, tolerance_m, (numbers[0], numbers[1], numbers[2]) if numbers else None)


def _parse_datum(datum: str, crs: str, axes: str) -> AnyDatum | None:
    if datum and crs:
        raise MapError("--datum and --crs both tell where the map is on Earth: give one")
    if crs and axes != "keep":
        raise MapError("--crs means that x is east, y north and z up: leave out --axes")
    if crs:
        return GridDatum.parse(crs)
    return Datum.parse(datum) if datum else None
