"""Take pictures of a recording in the rerun viewer, without a screen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.console import Console

from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError
from pixloc_ros.visualization.rerun_layout import TIMELINE

PORT = 9877
LOAD_S = 60.0
SETTLE_S = 3.0  # a software renderer is slow
TOP_BAR_PX = 34  # of the viewer's own
JPEG_QUALITY = 78
WIDTH_PX = 1280


def viewer_pictures(
    recording: Annotated[Path, typer.Argument(help="file written by `pixloc replay --view`")],
    output: Annotated[Path, typer.Option(help="NAME.jpg writes NAME_1.jpg and so on")],
    at: Annotated[list[float], typer.Option(help="seconds since the first stamp, repeatable")],
) -> None:
    """Take pictures of a recording at some instants, and print the viewer's complaints.

    Needs a Vulkan driver; mesa-vulkan-drivers has one that works without a GPU.

    Example: python -m research viewer-pictures run/drive.rrd --at 4.8 --at 9.6 --output drive.jpg
    """
    from rerun.experimental import ViewerClient

    viewer = ViewerClient.spawn(headless=True, port=PORT)
    try:
        viewer.open(str(recording.resolve()))
        first_ns = _first_stamp_ns(viewer)
        for number, seconds in enumerate(at, start=1):
            stamp_ns = first_ns + round(1e9 * seconds)
            viewer.set_time(TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"), play_state="paused")
            time.sleep(SETTLE_S)
            path = output.with_stem(f"{output.stem}_{number}")
            _save(viewer.take_screenshot(), path)
            for view in viewer.get_state().views:
                for report in view.reports:
                    Console().print(f"{view.name}: {report.severity}, {report.summary}")
            Console().print(f"picture: {path}", highlight=False)
    finally:
        viewer.quit()


def _first_stamp_ns(viewer: Any) -> int:
    deadline = time.monotonic() + LOAD_S
    while time.monotonic() < deadline:
        for recording in viewer.get_state().recordings:
            for timeline in recording.timelines:
                if timeline.name == TIMELINE:
                    return int(timeline.start)
        time.sleep(0.5)
    raise DataError(f"the viewer shows no timeline '{TIMELINE}': is it a file of --view?")


def _save(png: bytes, path: Path) -> None:
    """Return a JPEG without the viewer's top bar."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise DataError("the viewer's picture is no PNG")
    height, width = picture[TOP_BAR_PX:].shape[:2]
    size = (WIDTH_PX, round(height * WIDTH_PX / width))
    picture = cv2.resize(picture[TOP_BAR_PX:], size, interpolation=cv2.INTER_AREA)
    path.write_bytes(image_files.encode(picture, jpeg_quality=JPEG_QUALITY))
