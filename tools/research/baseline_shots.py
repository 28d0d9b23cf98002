"""`research shots`: like `pixloc shots`, with keypoints and PnP instead of the alignment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pixloc_ros.cli import shots as cli
from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.settings import MapOption, SettingsOptions
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.maps.map import Map

Method = Literal["sift", "disk_lightglue"]


@option_groups
def baseline_shots(
    map_folder: MapOption,
    images: cli.ImagesOption,
    meta: cli.MetaOption,
    method: Annotated[Method, typer.Option(help="keypoints to match; PnP then gives the pose")],
    map_images: Annotated[
        Path | None, typer.Option(help="folder of the map's images; default: --images")
    ] = None,
    offset: cli.OffsetOption = None,
    exclude_every: cli.ExcludeOption = 0,
    every: cli.EveryOption = 1,
    per_frame: cli.PerFrameOption = 1,
    all_axes: cli.AllAxesOption = False,
    degrade: cli.DegradeOption = None,
    axes: cli.AxesOption = "keep",
    seed: cli.SeedOption = 0,
    output: cli.OutputOption = None,
    *,
    settings: SettingsOptions,
) -> None:
    """Localize single frames with keypoints and PnP, to compare with `pixloc shots`.

    Example: python -m research shots --method sift --map town --images drive/images
    --meta drive/meta.json
    """
    from research.baselines.localizer import MATCHERS, BaselineLocalizer

    resolved = settings.resolve(map_folder)
    matcher, reference_map = MATCHERS[method](resolved.device), Map.load(resolved.map)
    localizer = BaselineLocalizer(matcher, reference_map, map_images or images, resolved)
    drive = read_posed_images(meta, images, axes)
    series = cli.ShotSeries(drive, exclude_every, every, per_frame, not all_axes, seed)
    cli.measure(localizer, series, offset or ["2,3"], degrade or [], output)
