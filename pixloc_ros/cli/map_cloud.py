"""`pixloc map cloud`: join posed lidar scans to one cloud, for `pixloc map build --cloud`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixloc_ros.cli.progress import track
from pixloc_ros.common.atomic_write import atomic_path, check_writable
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_poses
from pixloc_ros.maps.build.moving_objects import Scan, static_points
from pixloc_ros.maps.files.clouds import read_cloud, write_cloud


def cloud(
    scans: Annotated[Path, typer.Option(help="folder that the names of scans are relative to")],
    poses: Annotated[Path, typer.Option(help="lines `name qw qx qy qz tx ty tz`, lidar_from_map")],
    output: Annotated[Path, typer.Option(help="PLY file to write")],
) -> None:
    """Join lidar scans into one cloud, without moving objects: points that other scans see through.

    Example: pixloc map cloud --scans scans --poses lidar_poses.txt --output site.ply
    """
    if output.suffix.lower() != ".ply":
        raise MapError(f"{output}: a cloud is written as .ply")
    check_writable(output)
    named = read_poses(poses)
    read = [Scan(read_cloud(scans / name), se3.inverse(T)) for name, T in named.items()]
    points, report = static_points(read, progress=track)
    with atomic_path(output) as part:
        write_cloud(part, points)
    typer.echo(str(report))
