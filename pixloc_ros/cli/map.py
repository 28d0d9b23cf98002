"""`pixloc map`: build, inspect and verify maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Column, Table

from pixloc_ros.cli import map_sources
from pixloc_ros.cli.map_calibration import calibrate
from pixloc_ros.cli.map_cloud import cloud
from pixloc_ros.cli.map_sources import Sources
from pixloc_ros.cli.numbers import parse_numbers
from pixloc_ros.config import FeaturesConfig
from pixloc_ros.errors import ConfigError, MapError
from pixloc_ros.features.pyramid import MAX_SIDE_PX, FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build import edit
from pixloc_ros.maps.build.builder import BuildOptions
from pixloc_ros.maps.build.workers import WorkerPool
from pixloc_ros.maps.datum import AnyDatum, Datum, GridDatum
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import RowType, Storage

app = typer.Typer(help="Build, inspect, cut and join maps.", no_args_is_help=True)
app.command()(calibrate)
app.command()(cloud)

DEFAULT = BuildOptions()
FILES = Sources(Path())
NETWORK = FeaturesConfig()
TileOption = Annotated[
    float | None, typer.Option(min=0, help="side of a tile in metres; 0: one tile; as it was")
]
RowsOption = Annotated[
    RowType | None, typer.Option(help="type of stored features; as it was where not given")
]
MapArgument = Annotated[Path, typer.Argument(metavar="MAP", help="map folder")]


@app.command()
def build(
    images: Annotated[Path, typer.Option(help="folder that image names start from")],
    output: Annotated[Path, typer.Option(help="map folder to write")],
    colmap: Annotated[
        Path | None, typer.Option(help="folder of the COLMAP model, .bin or .txt")
    ] = None,
    posed_images: Annotated[
        Path | None,
        typer.Option(
            help="instead: meta.json, a TUM file, poses by name, or a folder of NAME.pose.txt"
        ),
    ] = None,
    cloud: Annotated[
        Path | None, typer.Option(help="points to use with posed images: PLY, PCD, LAS or LAZ")
    ] = None,
    mesh: Annotated[
        Path | None, typer.Option(help="surfaces to use with posed images: PLY or OBJ")
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(help="folder of depth images to use with posed images")
    ] = None,
    depth_scale: Annotated[
        float, typer.Option(min=1e-6, help="units of the depth images per metre")
    ] = FILES.depth_scale,
    voxel: Annotated[
        float, typer.Option(min=1e-3, help="metres between points of a cloud, mesh or depth images")
    ] = FILES.voxel_m,
    intrinsics: Annotated[
        str, typer.Option(help="FX,FY,CX,CY[,K1,K2,P1,P2] for poses that come without")
    ] = "",
    align_to: Annotated[
        Path | None,
        typer.Option(help="where the model's images were: meta.json, poses or fixes by name"),
    ] = None,
    align_tolerance: Annotated[
        float, typer.Option(min=0, help="metres that good places are off at most")
    ] = 3.0,
    antenna: Annotated[
        str, typer.Option(help="X,Y,Z in base_link of the antenna whose fixes --align-to has")
    ] = "",
    axes: Annotated[
        Literal["keep", "optical_to_ros"],
        typer.Option(help="optical_to_ros turns a world of x right, y down, z forward to z up"),
    ] = DEFAULT.axes,
    datum: Annotated[
        str, typer.Option(help="LAT,LON,ALT,YAW of the map's zero: degrees, metres, x from east")
    ] = "",
    crs: Annotated[
        str,
        typer.Option(help="CODE[,E,N,ALT] of a map in a projected frame, as EPSG:25832; its zero"),
    ] = "",
    camera_mount: Annotated[
        str, typer.Option(help="X,Y,Z,QX,QY,QZ,QW of the mapping camera in base_link")
    ] = "",
    weights: Annotated[str, typer.Option(help="packaged weights, or a path")] = NETWORK.weights,
    max_side_px: Annotated[
        int, typer.Option(help="reduce larger images to this side; queries too")
    ] = MAX_SIDE_PX,
    features: Annotated[
        Storage, typer.Option(help="keep each observation, or average them per point")
    ] = DEFAULT.features,
    rows: Annotated[
        RowType, typer.Option(help="type of stored features: float16 doubles the map")
    ] = DEFAULT.row_type,
    tile: Annotated[
        float, typer.Option(min=0, help="side of a tile in metres; 0: one tile")
    ] = DEFAULT.tile_m,
    keyframe_step: Annotated[
        int, typer.Option(min=1, help="take every N-th image by name")
    ] = DEFAULT.keyframe_step,
    min_track_length: Annotated[
        int, typer.Option(min=1, help="images that must see a point")
    ] = DEFAULT.min_track_length,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    workers: Annotated[int, typer.Option(min=1, help="processes that observe images")] = 1,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="of a Ray cluster that observes them instead")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Build a map from a COLMAP model, from images with known poses, or from a cloud and those.

    A build that was interrupted goes on where it was when it is started again.

    Example: pixloc map build --colmap sparse/0 --images images --output my_map
    """
    sources = Sources(
        images=images,
        colmap=colmap,
        posed_images=posed_images,
        intrinsics=intrinsics,
        cloud=cloud,
        mesh=mesh,
        depth=depth,
        depth_scale=depth_scale,
        voxel_m=voxel,
        align_to=align_to,
        align_tolerance_m=align_tolerance,
        antenna_base_m=_parse_antenna(antenna) if antenna else None,
    )
    sources.check()
    options = BuildOptions(
        features=features,
        row_type=rows,
        tile_m=tile,
        min_track_length=min_track_length,
        keyframe_step=keyframe_step,
        axes=axes,
        datum=_parse_datum(datum, crs, axes),
        T_base_cam=_parse_mount(camera_mount) if camera_mount else None,
        overwrite=overwrite,
        team=WorkerPool(workers, ray),
    )
    extractor = FeatureExtractor(weights, device, max_side_px)
    built = map_sources.build(sources, output, extractor, options)
    Console().print(_table(built, output))


@app.command()
def info(
    folder: MapArgument,
    plot: Annotated[Path | None, typer.Option(help="also draw it from above, as PNG")] = None,
) -> None:
    """Show what is in a map. Example: pixloc map info my_map --plot my_map.png"""
    map_ = Map.load(folder, verify=False)
    Console().print(_table(map_, folder))
    if plot is not None:
        from pixloc_ros.visualization.map_plot import write_map_plot

        write_map_plot(map_, plot)


@app.command()
def crop(
    folder: MapArgument,
    output: Annotated[Path, typer.Option(help="map folder to write")],
    low: Annotated[str, typer.Option("--from", help="X,Y in metres, the lower corner")],
    high: Annotated[str, typer.Option("--to", help="X,Y in metres, the upper corner")],
    tile: TileOption = None,
    rows: RowsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Cut out the keyframes between two corners, with what they see.

    Example: pixloc map crop town --from 0,-50 --to 100,50 --output square
    """
    least = parse_numbers("--from", low, "X,Y in metres", "0,-50")
    most = parse_numbers("--to", high, "X,Y in metres", "100,50")
    stored = edit.StoredMap(tile, rows)
    part = edit.crop(Map.load(folder), least, most, output, overwrite, stored)
    Console().print(_table(part, output))


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="MAP MAP...", help="map folders")],
    output: Annotated[Path, typer.Option(help="map folder to write")],
    tile: TileOption = None,
    rows: RowsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Join maps into one, in the frame of the first; placed by their datums where they have them.

    Example: pixloc map merge north south --output town
    """
    maps = [(folder.resolve().name, Map.load(folder)) for folder in folders]
    merged = edit.merge(maps, output, overwrite, edit.StoredMap(tile, rows))
    Console().print(_table(merged, output))


@app.command()
def verify(folder: MapArgument) -> None:
    """Check hashes, counts and values; exit code 1 on a problem.

    Example: pixloc map verify my_map
    """
    problems = find_problems(folder)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise MapError(f"{folder} has {len(problems)} problem(s), listed above; rebuild the map")
    typer.echo(f"{folder} is sound")


def _parse_antenna(text: str) -> tuple[float, float, float]:
    x, y, z = parse_numbers("--antenna", text, "X,Y,Z in metres", "0.4,0,1.9")
    return x, y, z


def _parse_mount(text: str) -> np.ndarray:
    """T_base_cam (4, 4) from the numbers that static_transform_publisher takes."""
    form, example = "X,Y,Z,QX,QY,QZ,QW", "1.5,0,1.4,-0.5,0.5,-0.5,0.5"
    numbers = np.array(parse_numbers("--camera-mount", text, form, example))
    try:
        return se3.from_quat_xyzw(numbers[3:], numbers[:3])
    except ValueError:
        raise ConfigError(f"--camera-mount {text}: the quaternion has no length") from None


def _table(map_: Map, folder: Path) -> Table:
    table = Table("", Column(overflow="fold"), title=str(folder), show_header=False)
    for name, value in {**_describe_content(map_, folder), **_describe_origin(map_)}.items():
        table.add_row(name, value)
    return table


def _describe_content(map_: Map, folder: Path) -> dict[str, str]:
    n_keyframes, n_points = len(map_.keyframe_names), map_.point_count
    size_bytes = sum(path.stat().st_size for path in folder.expanduser().iterdir())
    low, high = (f(map_.keyframe_T_map_cam[:, :3, 3], axis=0) for f in (np.min, np.max))
    spans = (f"{axis} {a:.1f}..{b:.1f}" for axis, a, b in zip("xyz", low, high, strict=True))
    return {
        "keyframes": f"{n_keyframes}, {map_.metadata.observations / n_keyframes:.0f} points each",
        "keyframes span": f"{', '.join(spans)} m",
        "points": f"{n_points}",
        "feature rows": f"{sum(t.rows for t in map_.metadata.tiles)} "
        f"({map_.metadata.storage}, {map_.metadata.row_type})",
        "tiles": _describe_tiles(map_),
        "on disk": f"{size_bytes / 1e6:.1f} MB, {size_bytes / n_points:.0f} bytes per point",
    }


def _describe_tiles(map_: Map) -> str:
    side_m, tiles = map_.metadata.tile_m, map_.metadata.tiles
    copies = sum(tile.points for tile in tiles) / max(map_.point_count, 1) - 1
    squares = f" of {side_m:g} m, {copies:.0%} of the points in more than one" * (len(tiles) > 1)
    refused = "".join(f"; refused: {why}" for why in map_.tiles.refused.values())
    return f"{len(tiles)}{squares}{refused}"


def _describe_origin(map_: Map) -> dict[str, str]:
    metadata = map_.metadata
    return {
        "axes": f"{metadata.axes}, frame {metadata.frame}",
        "datum": str(map_.datum or "none: GNSS fixes cannot be used"),
        "camera mount": "unknown" if map_.T_base_cam is None else "known",
        "cameras": ", ".join(f"{c.model} {c.width}x{c.height}" for c in map_.cameras),
        "network": f"{map_.model_id} ({map_.weights_sha256[:12]}), {metadata.max_side_px} px",
        "schema version": f"{metadata.schema_version}",
        "SHA-256": map_.sha256,
    }


def _parse_datum(datum: str, crs: str, axes: str) -> AnyDatum | None:
    if datum and crs:
        raise MapError("--datum and --crs both tell where the map is on Earth: give one")
    if crs and axes != "keep":
        raise MapError("--crs means that x is east, y north and z up: leave out --axes")
    if crs:
        return GridDatum.parse(crs)
    return Datum.parse(datum) if datum else None
