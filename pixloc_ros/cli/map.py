"""`pixloc map`: build, inspect and verify maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pixloc_ros.cli.map_build import build
from pixloc_ros.cli.map_calibration import calibrate
from pixloc_ros.cli.map_cloud import cloud
from pixloc_ros.cli.map_merge import RowsOption, TileOption, merge
from pixloc_ros.cli.map_table import history_table, map_table
from pixloc_ros.cli.map_update import update
from pixloc_ros.cli.numbers import parse_numbers
from pixloc_ros.cli.progress import track
from pixloc_ros.errors import MapError
from pixloc_ros.maps.build import edit, published
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map

app = typer.Typer(help="Build, inspect, cut and join maps.", no_args_is_help=True)
app.command()(build)
app.command()(calibrate)
app.command()(cloud)
app.command()(merge)
app.command()(update)

MapArgument = Annotated[Path, typer.Argument(metavar="MAP", help="map folder")]
AnyMapArgument = Annotated[str, typer.Argument(metavar="MAP", help="map folder, or its URL")]


@app.command()
def info(
    folder: AnyMapArgument,
    plot: Annotated[Path | None, typer.Option(help="also draw the map from above, as PNG")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="also list the drives that the map was updated with")
    ] = False,
) -> None:
    """Show what is in a map. Example: pixloc map info my_map --plot my_map.png"""
    map_ = Map.load(folder, verify=False)
    Console().print(map_table(map_, folder))
    if history:
        Console().print(history_table(map_.metadata.history))
    if plot is not None:
        from pixloc_ros.visualization.plotting import save_map_plot

        save_map_plot(map_, plot)


@app.command()
def crop(
    folder: MapArgument,
    output: Annotated[Path, typer.Option(help="map folder to write")],
    low: Annotated[str, typer.Option("--from", help="X,Y of the lower corner, in metres")],
    high: Annotated[str, typer.Option("--to", help="X,Y of the upper corner, in metres")],
    tile: TileOption = None,
    rows: RowsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Cut out the keyframes between two corners, with the points that they observe.

    Example: pixloc map crop town --from 0,-50 --to 100,50 --output square
    """
    least = parse_numbers("--from", low, "X,Y in metres", "0,-50")
    most = parse_numbers("--to", high, "X,Y in metres", "100,50")
    stored = edit.StoredMap(tile, rows)
    part = edit.crop(Map.load(folder), least, most, output, overwrite, stored)
    Console().print(map_table(part, output))


@app.command()
def export(
    folder: MapArgument,
    colmap: Annotated[Path | None, typer.Option(help="folder for a COLMAP model")] = None,
    ply: Annotated[Path | None, typer.Option(help="PLY file for the points")] = None,
) -> None:
    """Write a map for other programs, in the map's frame: keyframes and points, or points only.

    Cameras and pixels refer to images of the size stored in the map, by default at most 800 px
    wide.

    Example: pixloc map export town --colmap town_model --ply town.ply
    """
    from pixloc_ros.common.atomic_write import atomic_path
    from pixloc_ros.maps.build.export import write_colmap
    from pixloc_ros.maps.files.clouds import write_cloud

    if colmap is None and ply is None:
        raise MapError("nothing to write: give --colmap FOLDER, --ply FILE or both")
    map_ = Map.load(folder)
    if colmap is not None:
        write_colmap(map_, colmap)
    if ply is not None:
        with atomic_path(ply) as part:
            write_cloud(part, map_.whole().points_map())


@app.command()
def fetch(
    url: Annotated[str, typer.Argument(help="URL of a map, e.g. https://host/maps/campus")],
    output: Annotated[Path, typer.Option(help="map folder to write")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing map")] = False,
) -> None:
    """Download a map behind a URL to a folder; every file is compared with its hash.

    Example: pixloc map fetch https://host/maps/campus --output campus
    """
    published.fetch(url, output, overwrite, track)
    Console().print(map_table(Map.load(output), output))


@app.command()
def publish(
    folder: MapArgument,
    output: Annotated[Path, typer.Option(help="folder that a web server or a bucket will serve")],
) -> None:
    """Write a map with its files named by their hashes, beside those of earlier versions.

    Vehicles that use an earlier version still find its files. map.json is written last.

    Example: pixloc map publish campus --output /srv/www/maps/campus
    """
    published.publish(folder, output, track)
    typer.echo(f"{folder} is published in {output}")


@app.command()
def verify(folder: AnyMapArgument) -> None:
    """Check hashes, counts and values; exit code 1 on a problem.

    Example: pixloc map verify my_map
    """
    problems = find_problems(folder)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise MapError(f"{folder} has {len(problems)} problem(s), listed above; rebuild the map")
    typer.echo(f"{folder} is sound")
