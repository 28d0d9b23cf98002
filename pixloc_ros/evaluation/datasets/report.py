"""Write a benchmark's table, our rows beside the published ones, and the other files of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.evaluation.datasets import scores
from pixloc_ros.evaluation.datasets.protocol import Dataset, Poses, Scene
from pixloc_ros.evaluation.datasets.scores import Limit, PoseErrors, Score
from pixloc_ros.evaluation.tables import markdown_table

ACCEPTED, ANSWERED = "pixloc_ros, accepted only", "pixloc_ros, every query answered"
PUBLISHED_ROWS = "published method, aligned only", "published method, every query answered"
MEAN = "mean"  # 7Scenes' column: mean over the scenes of the recall at the first limit
RESULTS_FILE, SUMMARY_FILE = "results.md", "summary.json"


@dataclass(frozen=True, slots=True)
class SceneResult:
    """The poses of a scene's queries."""

    scene: Scene
    accepted: Poses
    answered: Poses  # including fallbacks for rejected queries


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """The results of a run. Scores cover the queries whose true poses are public."""

    title: str
    rows: dict[str, dict[str, Score]]  # by row and group
    header: tuple[str, ...]
    cells: list[tuple[str, ...]]  # ours first
    submissions: list[Path]

    def table(self) -> Table:
        """Return the rows as a table for the console."""
        table = Table(*self.header, title=self.title, title_justify="left")
        for cells in self.cells:
            table.add_row(*cells)
        return table


def evaluate(
    dataset: Dataset, results: Sequence[SceneResult], ours: Sequence[str] = (ACCEPTED, ANSWERED)
) -> BenchmarkReport:
    """Score both kinds of poses by group, and combine them with what others have published."""
    groups = list(dict.fromkeys(q.group for r in results for q in r.scene.queries))
    kinds = {ANSWERED: "answered", PUBLISHED_ROWS[1]: "answered"}
    rows = {
        name: _scores(
            dataset, [(r.scene, getattr(r, kinds.get(name, "accepted"))) for r in results]
        )
        for name in ours
    }
    columns = [*groups, *_extra_columns(dataset)]
    cells = [(name, *(_cell(dataset, of, c) for c in columns), "") for name, of in rows.items()]
    cells += [
        (row.method, *(row.cells.get(c, "-") for c in columns), row.source)
        for row in dataset.published
        if any(c in row.cells for c in columns)
    ]
    header = ("method", *columns, "source")
    return BenchmarkReport(f"{dataset.title}: {_unit(dataset)}", rows, header, cells, [])


def write(
    folder: Path, dataset: Dataset, results: Sequence[SceneResult], report: BenchmarkReport
) -> list[Path]:
    """Write results.md, summary.json and the submission; return the submission's files."""
    table = markdown_table([report.header, *report.cells])
    write_text(folder / RESULTS_FILE, f"# {report.title}\n\n{table}")
    summary = {
        name: {group: _as_json(score) for group, score in of.items()}
        for name, of in report.rows.items()
    }
    write_text(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return dataset.write_submission(folder, {r.scene.name: r.answered for r in results})


def _scores(dataset: Dataset, poses: Sequence[tuple[Scene, Poses]]) -> dict[str, Score]:
    """Score each group, pooled over the scenes in which it has queries."""
    errors: dict[str, list[PoseErrors]] = {}
    for scene, of_scene in poses:
        for group in dict.fromkeys(query.group for query in scene.queries):
            names = [q.name for q in scene.queries if q.group == group and q.name in scene.truth]
            truth = {name: scene.truth[name] for name in names}
            if truth:
                errors.setdefault(group, []).append(dataset.errors(of_scene, truth))
    return {
        group: scores.score(scores.pool(parts), dataset.limits) for group, parts in errors.items()
    }


def _extra_columns(dataset: Dataset) -> list[str]:
    return [MEAN] if any(MEAN in row.cells for row in dataset.published) else []


def _cell(dataset: Dataset, of: Mapping[str, Score], column: str) -> str:
    if column == MEAN:
        shares = [score.recall[dataset.limits[0]] for score in of.values()]
        return _percent(float(np.mean(shares))) if shares else "-"
    if column not in of:
        return "server"
    score = of[column]
    if dataset.with_medians:
        return f"{100 * score.median_m:.1f}/{score.median_deg:.2f}"
    return "/".join(_percent(score.recall[limit]) for limit in dataset.limits)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _unit(dataset: Dataset) -> str:
    if dataset.with_medians:
        return "median cm/deg"
    return "recall in percent within " + ", ".join(str(limit) for limit in dataset.limits)


def _as_json(score: Score) -> dict[str, object]:
    return {
        "queries": score.queries,
        "estimated": score.estimated,
        "median_m": _finite(score.median_m),
        "median_deg": score.median_deg,
        "recall": {_key(limit): share for limit, share in score.recall.items()},
    }


def _key(limit: Limit) -> str:
    return str(limit)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
