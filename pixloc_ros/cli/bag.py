"""`pixloc bag`: make rosbags from image sequences and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.numbers import parse_mount
from pixloc_ros.cli.progress import track as track_progress
from pixloc_ros.geometry import se3
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_writer import BagSummary, create_bag, create_bag_from_video
from pixloc_ros.replay.calibration_file import read_calibration
from pixloc_ros.replay.video_drive import VideoDrive, pinhole, read_track, video_size
from pixloc_ros.sensors.topics import Topics

app = typer.Typer(help="Make rosbags.", no_args_is_help=True)

DEFAULT = BagOptions()


@app.callback()
def bag() -> None:
    """Make rosbags."""


@app.command()
def create(
    images: Annotated[Path, typer.Option(help="folder of the images")],
    meta: Annotated[Path, typer.Option(help="meta.json with calibration, poses and times")],
    output: Annotated[Path, typer.Option(help="bag folder to write")],
    topic: Annotated[list[str] | None, typer.Option(help="part=/topic; repeatable")] = None,
    degrade: Annotated[
        str, typer.Option(help="night, blur, defocus, rain, fog or occlusion")
    ] = DEFAULT.degrade,
    compressed: Annotated[
        bool, typer.Option("--compressed/--raw", help="JPEG or raw images")
    ] = DEFAULT.compressed,
    video: Annotated[
        Literal["", "h264", "h265"],
        typer.Option(help="encode as h264 or h265 video instead of single images"),
    ] = "",
    gnss: Annotated[
        Literal["fix", "pose", "none"],
        typer.Option(help="GNSS as NavSatFix, as pose with covariance, or none"),
    ] = DEFAULT.gnss,
    receiver: Annotated[
        str, typer.Option(help="whose GNSS noise to simulate: ublox or phone")
    ] = DEFAULT.receiver,
    datum: Annotated[
        str,
        typer.Option(
            help="LAT,LON,ALT,YAW of the map's origin: degrees, metres, angle of x from east"
        ),
    ] = "",
    initial_pose: Annotated[
        bool, typer.Option(help="also write one /initialpose at the start")
    ] = DEFAULT.initial_pose,
    axes: Annotated[
        Literal["keep", "optical_to_ros"],
        typer.Option(
            help="optical_to_ros turns a world with x right, y down, z forward into one with z up"
        ),
    ] = "keep",
    scale: Annotated[float, typer.Option(help="reduce images by this factor")] = DEFAULT.scale,
    every: Annotated[int, typer.Option(min=1, help="keep every Nth image")] = DEFAULT.every,
    exclude_every: Annotated[
        int, typer.Option(min=0, help="leave out every Nth image (those used for the map); 0: none")
    ] = DEFAULT.exclude_every,
    storage: Annotated[
        Literal["mcap", "sqlite3"], typer.Option(help="file format of the bag")
    ] = "mcap",
    seed: Annotated[int, typer.Option(help="seed of all noise")] = DEFAULT.seed,
) -> None:
    """Write images with known poses to a rosbag2, with simulated odometry and GNSS.

    Example: pixloc bag create --images drive/images --meta drive/meta.json --output drive_bag
    --datum 49.0,8.4,110,0
    """
    options = BagOptions(
        topics=Topics().remapped(topic or []),
        compressed=compressed,
        video=video,
        storage=storage,
        degrade=degrade,
        gnss=gnss,
        receiver=receiver,
        datum=Datum.parse(datum) if datum else None,
        initial_pose=initial_pose,
        scale=scale,
        every=every,
        exclude_every=exclude_every,
        seed=seed,
    )
    summary = create_bag(
        read_posed_images(meta, images, axes), output, options, progress=track_progress
    )
    console = Console()
    console.print(_table(summary))
    console.print(f"ground truth: {summary.truth}", markup=False, soft_wrap=True)


@app.command()
def from_video(
    video: Annotated[
        Path, typer.Argument(help="video from a phone, a dashcam or an action camera")
    ],
    output: Annotated[Path, typer.Option(help="bag folder to write")],
    calibration: Annotated[
        Path | None, typer.Option(help="YAML file as camera_calibration writes it")
    ] = None,
    hfov: Annotated[
        float,
        typer.Option(
            min=1.0, max=170.0, help="without --calibration: horizontal field of view in degrees"
        ),
    ] = 70.0,
    track: Annotated[
        Path | None,
        typer.Option(help="CSV: time_s,latitude_deg,longitude_deg,altitude_m[,sigma_m]"),
    ] = None,
    camera_mount: Annotated[
        str, typer.Option(help="X,Y,Z,QX,QY,QZ,QW of the camera's optical frame in base_link")
    ] = "",
    every: Annotated[int, typer.Option(min=1, help="keep every Nth image")] = 1,
    storage: Annotated[
        Literal["mcap", "sqlite3"], typer.Option(help="file format of the bag")
    ] = "mcap",
) -> None:
    """Write a video, and the GNSS track recorded with it, to a rosbag2 from which to build a map.

    Example: pixloc bag from-video walk.mp4 --hfov 90 --track walk.csv --output walk_bag
    """
    known = read_calibration(calibration) if calibration else None
    drive = VideoDrive(
        video=video,
        camera=known or pinhole(video_size(video), hfov),
        fixes=read_track(track) if track else (),
        T_base_cam=parse_mount(camera_mount) if camera_mount else se3.base_from_optical(),
        every=every,
    )
    summary = create_bag_from_video(drive, output, storage=storage, progress=track_progress)
    Console().print(_table(summary))


def _table(summary: BagSummary) -> Table:
    table = Table(title=f"{summary.path.name}: {summary.duration_s:.1f} s", title_justify="left")
    table.add_column("topic")
    table.add_column("messages", justify="right")
    for name, count in sorted(summary.messages.items()):
        table.add_row(name, str(count))
    return table
