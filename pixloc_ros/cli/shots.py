"""`pixloc shots`: how wrong may a prior be?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.progress import track
from pixloc_ros.cli.replay import ConfigOption, DeviceOption, MapOption, SetOption, resolve_config


def shots(
    map_folder: MapOption,
    images: Annotated[Path, typer.Option(help="folder of the query images")],
    meta: Annotated[Path, typer.Option(help="meta.json with their true poses")],
    offset: Annotated[list[str] | None, typer.Option(help="METRES,DEGREES; repeatable")] = None,
    exclude_every: Annotated[int, typer.Option(help="leave out every Nth frame, the map's")] = 0,
    every: Annotated[int, typer.Option(min=1, help="use every Nth frame of the rest")] = 1,
    per_frame: Annotated[int, typer.Option(min=1, help="shots at each frame")] = 1,
    all_axes: Annotated[bool, typer.Option(help="offsets in six dimensions, not planar")] = False,
    degrade: Annotated[str, typer.Option(help="night, blur, rain, ...: as in bag create")] = "",
    axes: Annotated[str, typer.Option(help="keep or optical_to_ros, as for the map")] = "keep",
    seed: Annotated[int, typer.Option(help="of offsets and degradations")] = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures")] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    device: DeviceOption = None,
) -> None:
    """Localize single frames from priors that are off by given amounts in random directions.

    Example: pixloc shots --map town --images drive/images --meta drive/meta.json --offset 2,3
    """
    import json

    from pixloc_ros.evaluation.atomic import write_text
    from pixloc_ros.evaluation.shots import Offset, ShotSummary, posed_frames, shoot, summarize
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.replay.posed_images import read_posed_images

    localizer = Localizer(resolve_config(config, settings, map_folder, device))
    drive = read_posed_images(meta, images, axes)
    index = [i for i in range(len(drive.files)) if not exclude_every or i % exclude_every]
    index = index[::every]

    def run(offset: Offset) -> ShotSummary:
        frames = posed_frames(drive, index, degrade, seed)
        taken = shoot(localizer, frames, offset, per_frame, seed)
        total = len(index) * per_frame
        return summarize(list(track(taken, f"{offset.distance_m:g} m", total)))

    results: dict[str, dict[str, Any]] = {}
    for text in offset or ["2,3"]:
        distance_m, angle_deg = (float(number) for number in text.split(","))
        results[text] = asdict(run(Offset(distance_m, angle_deg, planar=not all_axes)))
        if output is not None:
            write_text(output, json.dumps(results, indent=2) + "\n")
    Console().print(_table(results))


def _table(results: dict[str, dict[str, Any]]) -> Table:
    table = Table("prior off by (m, deg)", *results, title="Single shots")
    for key in next(iter(results.values())):
        table.add_row(key, *_cells(results.values(), key))
    return table


def _cells(summaries: Any, key: str) -> Iterator[str]:
    for summary in summaries:
        value = summary[key]
        yield f"{value:.4f}" if isinstance(value, float) else str(value)
