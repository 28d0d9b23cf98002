"""`pixloc shots`: measure how wrong a prior may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli.numbers import parse_numbers
from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import MapOption, SettingsOptions

if TYPE_CHECKING:
    from pixloc_ros.evaluation.shots import Localizes, Offset, Shot
    from pixloc_ros.maps.files.posed_images import PosedImages

ImagesOption = Annotated[Path, typer.Option(help="folder of the query images")]
MetaOption = Annotated[Path, typer.Option(help="meta.json with their true poses")]
OffsetOption = Annotated[
    list[str] | None, typer.Option(help="METRES,DEGREES, or none for no prior; repeatable")
]
ExcludeOption = Annotated[int, typer.Option(help="leave out every Nth frame, as used for the map")]
EveryOption = Annotated[int, typer.Option(min=1, help="use every Nth of the remaining frames")]
PerFrameOption = Annotated[int, typer.Option(min=1, help="number of shots per frame")]
AllAxesOption = Annotated[
    bool, typer.Option(help="offsets in six dimensions, instead of planar ones")
]
DegradeOption = Annotated[
    list[str] | None, typer.Option(help="clean, night, blur, ... as in `bag create`; repeatable")
]
AxesOption = Annotated[str, typer.Option(help="keep or optical_to_ros, as for the map")]
SeedOption = Annotated[int, typer.Option(help="seed of offsets and degradations")]
OutputOption = Annotated[Path | None, typer.Option(help="JSON file for the figures")]


@option_groups
def shots(
    map_folder: MapOption,
    images: ImagesOption,
    meta: MetaOption,
    offset: OffsetOption = None,
    exclude_every: ExcludeOption = 0,
    every: EveryOption = 1,
    per_frame: PerFrameOption = 1,
    all_axes: AllAxesOption = False,
    degrade: DegradeOption = None,
    axes: AxesOption = "keep",
    seed: SeedOption = 0,
    output: OutputOption = None,
    *,
    settings: SettingsOptions,
) -> None:
    """Localize single frames from priors that are off by given amounts in random directions.

    Example: pixloc shots --map town --images drive/images --meta drive/meta.json --offset 2,3
    """
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.maps.files.posed_images import read_posed_images

    localizer = Localizer(settings.resolve(map_folder))
    series = ShotSeries(
        drive=read_posed_images(meta, images, axes),
        exclude_every=exclude_every,
        every=every,
        per_frame=per_frame,
        planar=not all_axes,
        seed=seed,
    )
    measure(localizer, series, offset or ["2,3"], degrade or [], output)


@dataclass(frozen=True, slots=True)
class ShotSeries:
    """Which frames of a drive are localized, and how often."""

    drive: PosedImages
    exclude_every: int
    every: int
    per_frame: int
    planar: bool
    seed: int

    @property
    def index(self) -> list[int]:
        """Indices of the frames to localize."""
        skip = self.exclude_every
        frames = [i for i in range(len(self.drive.files)) if not skip or i % skip]
        return frames[:: self.every]


def measure(
    localizer: Localizes,
    series: ShotSeries,
    offsets: list[str],
    degradations: list[str],
    output: Path | None,
) -> None:
    """Localize the series from every offset under every degradation, and print a table.

    Until all cases are done, their figures are in a file `.partial.json` beside `output`.
    """
    from itertools import product

    from pixloc_ros.common.atomic_write import check_writable
    from pixloc_ros.common.progress import keeping
    from pixloc_ros.evaluation.shots import CLEAN, posed_frames, shoot, summarize

    if output is not None:
        check_writable(output)
    results: dict[str, dict[str, Any]] = {}
    for text, degradation in product(offsets, degradations or [CLEAN]):
        offset = parse_offset(text, planar=series.planar)
        distance = f"{offset.distance_m:g} m" if offset else "no prior"
        case = text if degradation == CLEAN else f"{text} {degradation}"
        frames = posed_frames(series.drive, series.index, degradation, series.seed)
        taken = shoot(localizer, frames, offset, series.per_frame, series.seed)
        count = len(series.index) * series.per_frame
        done: list[Shot] = []
        kept = f"{_partial(output)} has what is done" if output else "nothing is kept"
        with keeping(kept):
            try:
                for shot in track(taken, f"{distance}, {degradation}", count):
                    done.append(shot)
            finally:
                if done:
                    results[case] = asdict(summarize(done))
                if 0 < len(done) < count:
                    results[case]["interrupted"] = f"after {len(done)} of {count} shots"
                _write_partial(output, results)
    if output is not None:
        _partial(output).replace(output)
    Console().print(_table(results))


def _partial(output: Path) -> Path:
    return output.with_suffix(".partial.json")


def _write_partial(output: Path | None, results: dict[str, dict[str, Any]]) -> None:
    import json

    from pixloc_ros.common.atomic_write import write_text

    if output is not None and results:
        write_text(_partial(output), json.dumps(results, indent=2) + "\n")


def parse_offset(text: str, planar: bool) -> Offset | None:
    """Return the offset given by METRES,DEGREES; None for `none`, no prior. Raises ConfigError."""
    from pixloc_ros.evaluation.shots import Offset

    if text == "none":
        return None
    distance_m, angle_deg = parse_numbers("--offset", text, "METRES,DEGREES or none", "2,3")
    return Offset(distance_m, angle_deg, planar)


def _table(results: dict[str, dict[str, Any]]) -> Table:
    table = Table("prior off by (m, deg)", *results, title="Single shots")
    for key in next(iter(results.values())):
        table.add_row(key, *_cells(results.values(), key))
    return table


def _cells(summaries: Any, key: str) -> Iterator[str]:
    for summary in summaries:
        value = summary[key]
        yield f"{value:.4f}" if isinstance(value, float) else str(value)
