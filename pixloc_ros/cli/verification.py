"""`pixloc verification`: fit and judge the probability that a pose is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixloc_ros.cli import shots as cli
from pixloc_ros.cli.option_groups import option_groups
from pixloc_ros.cli.progress import track
from pixloc_ros.cli.settings import MapOption, SettingsOptions
from pixloc_ros.config import AlignmentConfig, FeaturesConfig

if TYPE_CHECKING:
    from pixloc_ros.evaluation.shots import Offset, Shot
    from pixloc_ros.localizer import Localizer

app = typer.Typer(
    help="Record evidence, fit the probability of being wrong, and judge it.", no_args_is_help=True
)
LIMITS = (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)

RecordsArgument = Annotated[list[Path], typer.Argument(help="files of `verification collect`")]


@app.command()
@option_groups
def collect(
    map_folder: MapOption,
    images: cli.ImagesOption,
    meta: cli.MetaOption,
    output: Annotated[
        Path, typer.Option(help="JSON lines file, to which one line per shot is appended")
    ],
    place: Annotated[str, typer.Option(help="name of the place, by which the fit groups shots")],
    session: Annotated[
        str, typer.Option(help="name of the session; degradations are appended to it")
    ] = "day",
    elsewhere: Annotated[
        bool,
        typer.Option(
            help="the images show another place than the map: priors are at random keyframes"
        ),
    ] = False,
    offset: cli.OffsetOption = None,
    claim: Annotated[
        str | None,
        typer.Option(help="METRES,DEGREES: error that priors claim, if not their offset"),
    ] = None,
    exclude_every: cli.ExcludeOption = 0,
    every: cli.EveryOption = 1,
    per_frame: cli.PerFrameOption = 1,
    degrade: cli.DegradeOption = None,
    axes: cli.AxesOption = "keep",
    seed: cli.SeedOption = 0,
    *,
    settings: SettingsOptions,
) -> None:
    """Localize single frames as `pixloc shots` does, and record the evidence of each.

    Example: pixloc verification collect --map town --images night/images --meta night/meta.json
    --place town --session night --offset 2,3 --output town.jsonl
    """
    from pixloc_ros.common.atomic_write import check_writable
    from pixloc_ros.common.progress import keeping
    from pixloc_ros.evaluation.shots import CLEAN, posed_frames
    from pixloc_ros.evaluation.verification_fit import record
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.maps.files.posed_images import read_posed_images

    check_writable(output)
    config = settings.resolve(map_folder, "acceptance.always_compare_halves=true")
    localizer = Localizer(config)
    drive = read_posed_images(meta, images, axes)
    series = cli.ShotSeries(drive, exclude_every, every, per_frame, planar=True, seed=seed)
    with keeping(f"{output} has the shots so far"), output.open("a", encoding="utf-8") as file:
        for prior, degradation in product(offset or ["0.5,1"], degrade or [CLEAN]):
            frames = posed_frames(drive, series.index, degradation, seed)
            wanted = _claimed(prior, claim)
            taken = _shots(localizer, frames, wanted, series, elsewhere)
            name = session if degradation == CLEAN else f"{session}+{degradation}"
            for shot in track(taken, f"{prior}, {name}", len(series.index) * per_frame):
                line = record(shot, place, name, prior)
                if line is not None:
                    file.write(line.model_dump_json() + "\n")


def _claimed(text: str, claim: str | None) -> Offset | None:
    from dataclasses import replace

    offset = cli.parse_offset(text, planar=True)
    if offset is None or claim is None:
        return offset
    return replace(offset, claimed=cli.parse_offset(claim, planar=True))


def _shots(
    localizer: Localizer,
    frames: Iterator,
    offset: Offset | None,
    series: cli.ShotSeries,
    elsewhere: bool,
) -> Iterator[Shot]:
    from pixloc_ros.evaluation.shots import shoot, shoot_elsewhere

    count, seed = series.per_frame, series.seed
    if elsewhere:
        T_map_cam = localizer.map.keyframe_T_map_cam
        return shoot_elsewhere(localizer, frames, T_map_cam, offset, count, seed)
    return shoot(localizer, frames, offset, count, seed)


@app.command()
def fit(
    records: RecordsArgument,
    output: Annotated[
        Path, typer.Option(help="NAME.verification.json, to be put beside the weights")
    ],
    weights: Annotated[
        str, typer.Option(help="packaged weights or the file that the shots were made with")
    ] = FeaturesConfig().weights,
    policy: Annotated[str, typer.Option(help="policy of the alignment")] = AlignmentConfig().policy,
) -> None:
    """Fit the probability that a pose is wrong to recorded shots.

    Right and wrong shots are weighted equally.

    Example: pixloc verification fit fit/*.jsonl --output town.verification.json
    """
    from pixloc_ros.common.atomic_write import write_text
    from pixloc_ros.evaluation import verification_fit
    from pixloc_ros.features import weights as weights_files

    shots = verification_fit.read_records(records)
    model = verification_fit.fit(shots, weights_files.load(weights).sha256, policy)
    write_text(output, model.model_dump_json(indent=2) + "\n")
    table = Table(
        "evidence", "weight without halves", "weight with halves", title=f"{len(shots)} shots"
    )
    plain = {term.evidence: term.weight for term in model.plain.terms}
    for term in model.full.terms:
        without = f"{plain[term.evidence]:.3f}" if term.evidence in plain else ""
        table.add_row(term.evidence, without, f"{term.weight:.3f}")
    Console().print(table)


@app.command()
def judge(
    records: RecordsArgument,
    model: Annotated[Path, typer.Option(help="file written by `verification fit`")],
) -> None:
    """Count the right and wrong poses that a model accepts, at several limits of the probability.

    Use shots that the model was not fitted to.

    Example: pixloc verification judge judge/*.jsonl --model town.verification.json
    """
    from pixloc_ros.alignment.wrong_probability import read_model
    from pixloc_ros.evaluation import verification_fit

    shots = verification_fit.read_records(records)
    table = Table("limit", "right accepted", "wrong accepted", "share of wrong below (95 %)")
    for at in verification_fit.acceptance(read_model(model), shots, LIMITS):
        share = at.right_accepted / max(at.right, 1)
        right = f"{at.right_accepted} of {at.right} ({100 * share:.1f} %)"
        bound = f"{100 * at.wrong_bound:.3f} %"
        table.add_row(f"{at.limit:g}", right, f"{at.wrong_accepted} of {at.wrong}", bound)
    Console().print(table)
