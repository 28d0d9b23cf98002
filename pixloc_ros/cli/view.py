"""`pixloc view`: a run as one page of HTML."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def view(
    run: Annotated[Path, typer.Argument(help="folder of a run, or its frames.jsonl")],
    map_folder: Annotated[
        Path | None, typer.Option("--map", help="the map, to draw its keyframes")
    ] = None,
    bag: Annotated[Path | None, typer.Option(help="the bag, for the pictures of frames")] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="true poses; a run folder may have its own")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="file to write; else page.html in the run's folder")
    ] = None,
) -> None:
    """Write a run as one HTML page: trajectory, errors, evidence, and each frame at a click.

    Example: pixloc view run --map my_map --bag drive.mcap
    """
    from pixloc_ros.evaluation.html_page import plotly_js, write_page
    from pixloc_ros.evaluation.sources import load_frames

    plotly_js()  # before anything is read
    frames = load_frames(run, ground_truth)
    keyframe_xyz = None
    if map_folder is not None:
        from pixloc_ros.maps.map import Map

        keyframe_xyz = Map.load(map_folder).keyframe_T_map_cam[:, :3, 3]
    file = output or (run if run.is_dir() else run.parent) / "page.html"
    if bag is None:
        write_page(file, frames, run.resolve().name, keyframe_xyz)
    else:
        from pixloc_ros.replay.bag_reader import BagReader
        from pixloc_ros.sensors.events import ImageEvent

        with BagReader(bag) as reader:
            events = reader.events(parts=("image",))
            images = (
                (e.stamp_ns, partial(e.decode, None)) for e in events if type(e) is ImageEvent
            )
            write_page(file, frames, run.resolve().name, keyframe_xyz, images)
    print(f"wrote {file}: open it in a browser")
