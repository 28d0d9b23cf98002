"""`pixloc view`: show a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixloc_ros.sensors.topics import Topics


def view(
    run: Annotated[Path, typer.Argument(help="folder of a run, or its frames.jsonl")],
    map_folder: Annotated[
        str | None, typer.Option("--map", help="the map, to draw its keyframes and points")
    ] = None,
    bag: Annotated[Path | None, typer.Option(help="the bag, for the images of the frames")] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="of the bag: part=/topic, as it was replayed with; repeatable"),
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="true poses; default: those in the run folder, if any")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="file to write; default: page.html in the run's folder")
    ] = None,
) -> None:
    """Write a run as one HTML page: trajectory, errors, evidence; a click shows a frame's details.

    Example: pixloc view run --map my_map --bag drive.mcap
    """
    from pixloc_ros.evaluation.html_page import Images, plotly_js, write_page
    from pixloc_ros.evaluation.sources import load_frames

    plotly_js()  # before anything is read
    frames = load_frames(run, ground_truth)
    folder = run if run.is_dir() else run.parent
    map_ = keyframe_xyz = None
    images: Images = ()
    if map_folder is not None:
        from pixloc_ros.maps.map import Map

        map_ = Map.load(map_folder)
        keyframe_xyz = map_.keyframe_T_map_cam[:, :3, 3]
    if bag is not None:
        from pixloc_ros.replay.run_images import run_images

        images = run_images(bag, folder, frames, map_, Topics().remapped(topic or []))
    file = output or folder / "page.html"
    write_page(file, frames, run.resolve().name, keyframe_xyz, images)
    print(f"wrote {file}: open it in a browser")
