"""`research verification-table`: what the shots of `research verification-shots` show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from scipy.stats import binomtest

from pixloc_ros.evaluation.verification_fit import WRONG_DEG, WRONG_M

FOUND_M, FOUND_DEG = 0.1, 0.5
ACCEPTED = "ok"
Shot = dict[str, Any]


def verification_table(
    records: Annotated[list[Path], typer.Argument(help="files below WORK/records")],
) -> None:
    """Print a Markdown table: what was found and accepted, by set, session and prior.

    Example: research verification-table verification/records/judge/*.jsonl
    """
    typer.echo("| set | session | prior | shots | found | accepted | wrong | refused for |")
    typer.echo("|---|---|---|---|---|---|---|---|")
    shots = [shot for path in records for shot in read(path)]
    for group in (*groups(shots, ("set", "session", "prior")), *groups(shots, ("elsewhere",))):
        typer.echo(row(group))


def read(path: Path) -> list[Shot]:
    """Read the shots of a set; streets that differ in the seed only have one name."""
    name = re.sub(r"street ?\d", "street", path.stem.partition(" ")[2])
    shots = [json.loads(line) | {"set": name} for line in path.read_text().splitlines()]
    return [shot | {"prior": "at keyframes"} if shot["elsewhere"] else shot for shot in shots]


def groups(shots: Sequence[Shot], names: Sequence[str]) -> Iterator[list[Shot]]:
    """Group shots that agree in these; whatever else a group mixes is called "all"."""
    whole = {"set": "all", "session": "all", "prior": "all"}

    def key(shot: Shot) -> list[Any]:
        return [shot[name] for name in names]

    for _, group in groupby(sorted(shots, key=key), key):
        yield [shot | whole | {name: shot[name] for name in names} for shot in group]


def row(shots: Sequence[Shot]) -> str:
    """Return the line of one group."""
    accepted = [shot for shot in shots if shot.get("reason") == ACCEPTED]
    wrong = [shot for shot in accepted if not within(shot, WRONG_M, WRONG_DEG)]
    found = (
        ""
        if shots[0]["elsewhere"]
        else share(sum(within(shot, FOUND_M, FOUND_DEG) for shot in shots), len(shots))
    )
    reasons = [shot.get("reason") or shot["nothing"] for shot in shots]
    refused = sorted(set(reasons) - {ACCEPTED}, key=lambda each: (-reasons.count(each), each))
    why = ", ".join(f"{reason} {reasons.count(reason)}" for reason in refused)
    first = [shots[0][name] for name in ("set", "session", "prior")]
    cells = *first, len(shots), found, share(len(accepted), len(shots)), len(wrong)
    return "| " + " | ".join(map(str, (*cells, why))) + " |"


def within(shot: Shot, distance_m: float, angle_deg: float) -> bool:
    """Whether the pose is that near to the truth; without a truth, it is not."""
    error_m, error_deg = shot.get("error_m"), shot.get("error_deg")
    if error_m is None or error_deg is None:
        return False
    return bool(error_m <= distance_m and error_deg <= angle_deg)


def share(count: int, total: int) -> str:
    """Return a share with its interval of 95 % (Clopper and Pearson 1934)."""
    low, high = binomtest(count, total).proportion_ci(0.95, "exact")
    return f"{count / total:.2f} ({low:.2f} to {high:.2f})"
