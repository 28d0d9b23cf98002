"""Present the figures of a run as rows of label and value, for the console and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from pixloc_ros.evaluation.frames import FrameResult
from pixloc_ros.evaluation.metrics import FALSE_ACCEPT_M, GAUSSIAN_SHARE, SIGMAS, Coverage, Summary
from pixloc_ros.types import Reason

Row = tuple[str, str]


def summary_rows(summary: Summary) -> list[Row]:
    """Return label and value of every known figure."""
    return [*_frame_rows(summary), *_error_rows(summary), *_other_rows(summary)]


def summary_table(summary: Summary, title: str = "Localization") -> Table:
    """Return the rows as a table for the console, with false accepts and an interruption in red."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    for label, value in summary_rows(summary):
        alarm = label == "interrupted" or (
            label.startswith("false accepts") and summary.false_accepts
        )
        table.add_row(label, value, style="bold red" if alarm else None)
    return table


def worst_frames(frames: Sequence[FrameResult], count: int = 10) -> list[tuple[str, ...]]:
    """Return frames to look at first: largest errors, then those without a pose; with a header."""
    localized = [frame for frame in frames if frame.error is not None]
    localized.sort(key=lambda frame: -frame.error.translation_m if frame.error else 0.0)
    refused = [frame for frame in frames if not frame.ok]
    header = ("frame", "status", "error", "cost", "inliers", "prior error", "message")
    return [header, *map(_frame_row, [*localized[:count], *refused[:count]])]


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is the header."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---"] * len(escaped[0])
    return "\n".join(f"| {' | '.join(row)} |" for row in [escaped[0], rule, *escaped[1:]]) + "\n"


def pose_error(metres: float | None, degrees: float | None) -> str:
    """Return both errors as text; empty if they are unknown."""
    if metres is None or degrees is None:
        return ""
    return f"{metres:.3f} m, {degrees:.2f} deg"


def _frame_rows(summary: Summary) -> Iterator[Row]:
    if summary.interrupted is not None:
        yield "interrupted", summary.interrupted
    share = summary.frames_localized / max(summary.frames_total, 1)
    yield "localized", f"{summary.frames_localized} of {summary.frames_total} ({share:.1%})"
    for reason, count in summary.reasons.items():
        if reason != Reason.OK:
            yield f"  {reason}", str(count)
    if summary.frames_with_truth not in (0, summary.frames_total):
        yield "frames with truth", str(summary.frames_with_truth)


def _error_rows(summary: Summary) -> Iterator[Row]:
    for limit, share in (summary.recall or {}).items():
        yield f"within {limit}", f"{share:.1%}"
    if summary.false_accepts is not None:
        yield f"false accepts (over {FALSE_ACCEPT_M:g} m)", str(summary.false_accepts)
    if summary.median_error_m is not None:
        yield "median error", pose_error(summary.median_error_m, summary.median_error_deg)
        yield "95 % of errors below", pose_error(summary.p95_error_m, summary.p95_error_deg)
        yield "largest error", f"{summary.max_error_m:.3f} m"
        yield (
            "median along, cross",
            f"{summary.median_along_m:.3f} m, {summary.median_cross_m:.3f} m",
        )
    if summary.bias_along_cross_up_m is not None:
        yield "bias along, cross, up", ", ".join(f"{b:+.3f}" for b in summary.bias_along_cross_up_m)
    if summary.median_prior_error_m is not None:
        prior = pose_error(summary.median_prior_error_m, summary.median_prior_error_deg)
        yield "median error of the prior", prior


def _other_rows(summary: Summary) -> Iterator[Row]:
    if summary.coverage is not None:
        yield from _coverage_rows(summary.coverage)
    if summary.latency_ms is not None:
        times = summary.latency_ms
        yield "latency p50, p95, p99", f"{times.p50:.0f}, {times.p95:.0f}, {times.p99:.0f} ms"
    for label, digest in (("map", summary.map_sha256), ("weights", summary.weights_sha256)):
        if digest:
            yield f"{label} sha256", digest[:12]


def _coverage_rows(coverage: Coverage) -> Iterator[Row]:
    for k, expected in zip(SIGMAS, GAUSSIAN_SHARE, strict=True):
        words = [
            "/".join(f"{100 * share:.0f}" for share in shares[str(k)])
            for shares in (coverage.translation, coverage.rotation)
        ]
        yield f"within {k} sigma: xyz, rotation", f"{', '.join(words)} % (ideal {expected:.1%})"


def _frame_row(frame: FrameResult) -> tuple[str, ...]:
    found = frame.error or frame.candidate_error
    prior = frame.prior.error if frame.prior is not None else None
    return (
        frame.name,
        str(frame.status),
        pose_error(found.translation_m, found.rotation_deg) if found else "",
        "" if frame.cost is None else f"{frame.cost:.3f}",
        "" if frame.inlier_share is None else f"{frame.inlier_share:.0%}",
        pose_error(prior.translation_m, prior.rotation_deg) if prior else "",
        "" if frame.ok else frame.message or frame.reason,
    )
