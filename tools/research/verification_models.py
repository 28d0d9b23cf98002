"""`research verification-models`: fit a verification to shots, and compare models on others.

The shots are those of `research verification-shots` with `acceptance.always_compare_halves=true`,
so that every model has all evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from scipy.stats import binomtest

from pixloc_ros.alignment.wrong_probability import SUFFIX, VerificationModel, read_model
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.config import AcceptanceConfig, AlignmentConfig
from pixloc_ros.evaluation.verification_fit import ShotRecord, fit
from pixloc_ros.features import weights

LIMITS = AcceptanceConfig()


def verification_fit(
    records: Annotated[list[Path], typer.Argument(help="files below WORK/records/fit")],
    output: Annotated[Path, typer.Option(help="NAME.verification.json")],
    network: Annotated[str, typer.Option("--weights", help="that the shots were made with")],
) -> None:
    """Fit a verification, as `pixloc verification fit` does, to the shots of this study.

    Example: research verification-fit work/records/fit/*.jsonl --weights open --output open.json
    """
    shots = [record for record, _ in read(records)]
    model = fit(shots, weights.load(network).sha256, AlignmentConfig().policy)
    write_text(output, model.model_dump_json(indent=2) + "\n")


def verification_models(
    records: Annotated[list[Path], typer.Argument(help="files below WORK/records")],
    model: Annotated[list[Path], typer.Option(help="NAME.verification.json; repeatable")],
) -> None:
    """Print a Markdown table: what models accept of the same shots, together with all limits.

    "Beyond": accepted poses that are not wrong, with an error beyond the protection level.

    Example: research verification-models work/records/judge/*.jsonl --model open.verification.json
    """
    shots = list(read(records))
    typer.echo("| model | place, session | right accepted | in between | wrong accepted | beyond |")
    typer.echo("|---|---|---|---|---|---|")
    for path in model:
        for name, group in groups(shots):
            typer.echo(row(path.name.removesuffix(SUFFIX), name, group, read_model(path)))


def read(paths: Sequence[Path]) -> Iterator[tuple[ShotRecord, str | None]]:
    """Read shots that ended in a pose: their record, and the limit that refuses it, if one does."""
    for path in paths:
        for line in path.read_text().splitlines():
            shot: dict[str, Any] = json.loads(line)
            if "nothing" not in shot:
                known = {name: shot[name] for name in ShotRecord.model_fields if name in shot}
                yield ShotRecord.model_validate(known), shot["limit"]


Shots = list[tuple[ShotRecord, str | None]]


def groups(shots: Shots) -> Iterator[tuple[str, Shots]]:
    """Group shots by place and session, images of another place together; and all of them."""
    named: dict[str, Shots] = {}
    for record, limit in shots:
        name = "another place" if record.error_m is None else f"{record.place}, {record.session}"
        named.setdefault(name, []).append((record, limit))
    yield from sorted(named.items())
    yield "all", shots


def row(model_name: str, name: str, shots: Shots, model: VerificationModel) -> str:
    """Return the line of one group."""
    accepted = [record for record, limit in shots if limit is None and accepts(model, record)]
    kinds = [record.wrong for record, _ in shots]
    right, between, wrong = (
        share(sum(record.wrong is kind for record in accepted), kinds.count(kind))
        for kind in (False, None, True)
    )
    bounded = [record for record in accepted if record.error_m is not None and not record.wrong]
    beyond = sum(
        record.error_m > model.protection_factor * record.sigma_m
        for record in bounded
        if record.error_m is not None and record.sigma_m is not None
    )
    cells = model_name, name, right, between, wrong, share(beyond, len(bounded))
    return "| " + " | ".join(cells) + " |"


def accepts(model: VerificationModel, record: ShotRecord) -> bool:
    """Whether the evidence accepts a pose that no other limit refuses."""
    limit, evidence = LIMITS.max_wrong_probability, record.facts
    is_unique = evidence.runner_up_loss >= LIMITS.min_runner_up_loss
    return is_unique and model.wrong_probability(evidence, limit) <= limit


def share(count: int, total: int) -> str:
    """Return counts with the interval of their share, 95 % (Clopper and Pearson 1934)."""
    if not total:
        return ""
    low, high = binomtest(count, total).proportion_ci(0.95, "exact")
    return f"{count} of {total} ({low:.3f} to {high:.3f})"
