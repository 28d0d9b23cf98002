"""`pixloc shots`: how wrong may a prior be?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.numbers import parse_numbers
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.replay import ConfigOption, DeviceOption, MapOption, SetOption, resolve_config
from pixloc_ros.config import Config

if TYPE_CHECKING:
    from pixloc_ros.evaluation.shots import Localizes, Offset

Method = Literal["align", "sift", "disk_lightglue"]


def shots(
    map_folder: MapOption,
    images: Annotated[Path, typer.Option(help="folder of the query images")],
    meta: Annotated[Path, typer.Option(help="meta.json with their true poses")],
    offset: Annotated[
        list[str] | None, typer.Option(help="METRES,DEGREES, or none: no prior; repeatable")
    ] = None,
    exclude_every: Annotated[int, typer.Option(help="leave out every Nth frame, the map's")] = 0,
    every: Annotated[int, typer.Option(min=1, help="use every Nth frame of the rest")] = 1,
    per_frame: Annotated[int, typer.Option(min=1, help="shots at each frame")] = 1,
    all_axes: Annotated[bool, typer.Option(help="offsets in six dimensions, not planar")] = False,
    degrade: Annotated[
        list[str] | None, typer.Option(help="clean, night, blur, ...: as in bag create; repeatable")
    ] = None,
    method: Annotated[
        Method, typer.Option(help="align: this localizer; others: keypoints and PnP, to compare")
    ] = "align",
    map_images: Annotated[
        Path | None, typer.Option(help="folder of the map's images, for keypoints; as --images")
    ] = None,
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

    from pixloc_ros.atomic import write_text
    from pixloc_ros.evaluation.shots import (
        CLEAN,
        ShotSummary,
        posed_frames,
        shoot,
        summarize,
    )
    from pixloc_ros.replay.posed_images import read_posed_images

    resolved = resolve_config(config, settings, map_folder, device)
    localizer = _localizer(method, resolved, map_images or images)
    drive = read_posed_images(meta, images, axes)
    index = [i for i in range(len(drive.files)) if not exclude_every or i % exclude_every]
    index = index[::every]

    def run(offset: Offset | None, degradation: str) -> ShotSummary:
        frames = posed_frames(drive, index, degradation, seed)
        taken = shoot(localizer, frames, offset, per_frame, seed)
        distance = f"{offset.distance_m:g} m" if offset else "no prior"
        name = f"{distance}, {degradation}"
        return summarize(list(track(taken, name, len(index) * per_frame)))

    results: dict[str, dict[str, Any]] = {}
    for text in offset or ["2,3"]:
        off = _offset(text, planar=not all_axes)
        for name in degrade or [CLEAN]:
            case = text if name == CLEAN else f"{text} {name}"
            results[case] = asdict(run(off, name))
            if output is not None:
                write_text(output, json.dumps(results, indent=2) + "\n")
    Console().print(_table(results))


def _offset(text: str, planar: bool) -> Offset | None:
    from pixloc_ros.evaluation.shots import Offset

    if text == "none":
        return None
    distance_m, angle_deg = parse_numbers("--offset", text, "METRES,DEGREES or none", "2,3")
    return Offset(distance_m, angle_deg, planar)


def _localizer(method: Method, config: Config, map_images: Path) -> Localizes:
    from pixloc_ros.localizer import Localizer

    if method == "align":
        return Localizer(config)
    from pixloc_ros.maps.store import Map
    from pixloc_ros.peers.localizer import MATCHERS, PeerLocalizer

    return PeerLocalizer(MATCHERS[method](config.device), Map.load(config.map), map_images, config)


def _table(results: dict[str, dict[str, Any]]) -> Table:
    table = Table("prior off by (m, deg)", *results, title="Single shots")
    for key in next(iter(results.values())):
        table.add_row(key, *_cells(results.values(), key))
    return table


def _cells(summaries: Any, key: str) -> Iterator[str]:
    for summary in summaries:
        value = summary[key]
        yield f"{value:.4f}" if isinstance(value, float) else str(value)
