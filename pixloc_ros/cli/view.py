"""`pixloc view`: a run as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    run: Annotated[Path, typer.Argument(help="folder of a run, or its frames.jsonl")],
    map_folder: Annotated[
        Path | None, typer.Option("--map", help="the map, to draw its keyframes and points")
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
    from pixloc_ros.config import Config, load
    from pixloc_ros.evaluation.html_page import plotly_js, write_page
    from pixloc_ros.evaluation.sources import load_frames
    from pixloc_ros.maps.map import Map
    from pixloc_ros.replay.run_images import run_images
    from pixloc_ros.replay.runner import CONFIG_FILE

    plotly_js()  # before anything is read
    frames = load_frames(run, ground_truth)
    folder = run if run.is_dir() else run.parent
    map_ = None if map_folder is None else Map.load(map_folder)
    keyframe_xyz = None if map_ is None else map_.keyframe_T_map_cam[:, :3, 3]
    file = output or folder / "page.html"
    settings = folder / CONFIG_FILE
    config = load(settings) if settings.exists() else Config()
    images = () if bag is None else run_images(bag, config, frames, map_)
    write_page(file, frames, run.resolve().name, keyframe_xyz, images)
    print(f"wrote {file}: open it in a browser")
