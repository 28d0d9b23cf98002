"""Draw the figures of a run as plain `Figure` objects: no global state, nothing stays open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from pixloc_ros.evaluation.frames import FrameResult, PoseError, PoseRecord
from pixloc_ros.evaluation.metrics import THRESHOLDS
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.types import Status
from pixloc_ros.visualization import plotting

FLOOR = 1e-3  # metres or degrees; on logarithmic axes, smaller errors are drawn here
FAR_AWAY_M = 1e5  # larger coordinates (UTM) are drawn relative to a round number
ERROR_PANELS = (
    ("translation_m", "position error (m)", [limit.max_m for limit in THRESHOLDS]),
    ("rotation_deg", "rotation error (deg)", [limit.max_deg for limit in THRESHOLDS]),
)


def write_plots(
    folder: Path, frames: Sequence[FrameResult], keyframe_xyz: ArrayLike | None = None
) -> list[Path]:
    """Draw all figures that the frames allow as PNG; return their paths in reading order.

    keyframe_xyz: (M, 3) positions of the map's reference images, in metres.
    """
    figures = {"trajectory": trajectory_figure(frames, keyframe_xyz)}
    if any(frame.truth is not None for frame in frames):
        figures["errors"] = errors_figure(frames)
        figures["cumulative"] = cumulative_figure(frames)
    if any(_prior_error(frame) is not None for frame in frames):
        figures["prior"] = prior_figure(frames)
    if any(frame.cost is not None for frame in frames):
        figures["quality"] = quality_figure(frames)
    return [plotting.save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def trajectory_figure(
    frames: Sequence[FrameResult], keyframe_xyz: ArrayLike | None = None
) -> Figure:
    """Draw the drive from above: truth, reference images, estimates by error, rejected frames."""
    keyframes = np.asarray([] if keyframe_xyz is None else keyframe_xyz, float).reshape(-1, 3)
    truth = _positions([frame.truth for frame in frames])
    everywhere = np.concatenate([_positions([_place(f) for f in frames]), truth, keyframes])
    origin = _round_origin(everywhere)
    figure, (axes,) = plotting.new_figure(1, 1, *_size_for(everywhere))
    _scatter(
        axes, keyframes - origin, marker="^", s=60, facecolors="none",
        edgecolors=plotting.KEYFRAME_COLOR, label="map keyframes", zorder=2,
    )  # fmt: skip
    if len(truth):
        xy = (truth - origin)[:, :2].T
        axes.plot(*xy, color=plotting.TRUTH_COLOR, lw=5, zorder=1, label="truth")
    _draw_localized(figure, axes, frames, origin)
    for status in (Status.REJECTED, Status.AMBIGUOUS, Status.FAILED):
        xyz = _positions([_place(frame) for frame in frames if frame.status is status])
        color, marker = plotting.STATUS_STYLE[status]
        _scatter(axes, xyz - origin, color=color, marker=marker, s=34, label=status, zorder=4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel=_axis_label("x", origin[0]), ylabel=_axis_label("y", origin[1]))
    plotting.legend_inside(axes)
    return figure


def errors_figure(frames: Sequence[FrameResult]) -> Figure:
    """Draw both errors over time with recall thresholds; marks below show frames without a pose."""
    figure, panels = plotting.new_figure(2, 1, 10, 6, sharex=True)
    for axes, (field, label, limits) in zip(panels, ERROR_PANELS, strict=True):
        plotting.log_axis(axes, "y")
        priors = _over_time(frames, [_value(_prior_error(frame), field) for frame in frames])
        if priors:
            _, times, values = zip(*priors, strict=True)
            axes.scatter(times, values, s=8, color=plotting.PRIOR_COLOR, marker=".", label="prior")
        plotting.scatter_by_status(
            axes, _over_time(frames, [_value(f.error, field) for f in frames])
        )
        _draw_without_pose(axes, frames)
        _draw_limits(axes, limits)
        axes.set_ylabel(label)
    panels[-1].set_xlabel("time (s)")
    plotting.legend_above(figure, panels[0])
    return figure


def cumulative_figure(frames: Sequence[FrameResult]) -> Figure:
    """Draw the share of all frames with an error below a value, for estimates and for priors."""
    figure, panels = plotting.new_figure(1, 2, 10, 4, sharey=True)
    known = [frame for frame in frames if frame.truth is not None]
    for axes, (field, label, limits) in zip(panels, ERROR_PANELS, strict=True):
        priors = [_value(_prior_error(frame), field) for frame in known]
        results = [_value(frame.error, field) for frame in known]
        end = 2 * max([*filter(None, priors), *filter(None, results), *limits])
        _draw_shares(axes, priors, end, color=plotting.PRIOR_COLOR, label="prior")
        _draw_shares(axes, results, end, color=plotting.ESTIMATE_COLOR, label="estimate")
        for limit in limits:
            axes.axvline(limit, color=plotting.LIMIT_COLOR, ls=":", lw=1.2)
        plotting.log_axis(axes, "x")
        axes.set(xlabel=label, ylim=(0, 102))
    panels[0].set_ylabel("frames (%), those without a pose failed")
    plotting.legend_inside(panels[0])
    return figure


def prior_figure(frames: Sequence[FrameResult]) -> Figure:
    """Plot the error after alignment over that of the prior: below the diagonal, it improved."""
    figure, panels = plotting.new_figure(1, 2, 10, 4.6)
    for axes, (field, label, _) in zip(panels, ERROR_PANELS, strict=True):
        plotting.log_axis(axes, "x")
        plotting.log_axis(axes, "y")
        pairs = (
            (frame.status, _value(_prior_error(frame), field), _value(found, field))
            for frame in frames
            if (found := frame.error or frame.candidate_error) is not None
        )
        plotting.scatter_by_status(axes, ((s, x, y) for s, x, y in pairs if x and y))
        axes.axline((0.01, 0.01), (0.1, 0.1), color=plotting.PRIOR_COLOR, lw=1, label="no change")
        axes.set(xlabel=f"prior: {label}", ylabel=f"result: {label}")
    plotting.legend_above(figure, panels[0])
    return figure


def quality_figure(frames: Sequence[FrameResult]) -> Figure:
    """Draw what is known without truth: cost, inliers and latency over time."""
    figure, panels = plotting.new_figure(3, 1, 10, 6.5, sharex=True)
    fields = {"cost": "cost", "inlier_share": "inlier share", "latency_ms": "latency (ms)"}
    for axes, (field, label) in zip(panels, fields.items(), strict=True):
        values = [getattr(frame, field) for frame in frames]
        plotting.scatter_by_status(axes, _over_time(frames, values), size=14)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    panels[-1].set_xlabel("time (s)")
    plotting.legend_above(figure, panels[0])
    return figure


def _draw_localized(
    figure: Figure, axes: Axes, frames: Sequence[FrameResult], origin: Matrix
) -> None:
    found = [frame for frame in frames if frame.pose is not None]
    xyz = _positions([frame.pose for frame in found]) - origin
    errors = [frame.error.translation_m for frame in found if frame.error is not None]
    if not errors or len(errors) < len(found):
        _scatter(axes, xyz, color=plotting.ESTIMATE_COLOR, s=12, label="estimate", zorder=3)
        return
    norm = LogNorm(FLOOR, max(1.0, *errors), clip=True)
    x, y = xyz[:, 0], xyz[:, 1]
    points = axes.scatter(x, y, c=errors, norm=norm, cmap="viridis", s=16, zorder=3)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    figure.colorbar(points, ax=axes, label="position error (m)", shrink=0.85, format=plain)


def _draw_without_pose(axes: Axes, frames: Sequence[FrameResult]) -> None:
    for status, (color, marker) in plotting.STATUS_STYLE.items():
        lost = [f for f in frames if f.status is status and f.pose is None]
        if lost:
            times = [_time_s(frame, frames[0]) for frame in lost]
            axes.scatter(
                times, np.full(len(lost), 0.03), s=30, color=color, marker=marker, zorder=4,
                transform=axes.get_xaxis_transform(), label=f"{status} (no pose)",
            )  # fmt: skip


def _draw_limits(axes: Axes, limits: Sequence[float]) -> None:
    for limit in limits:
        axes.axhline(limit, color=plotting.LIMIT_COLOR, ls="--", lw=1, zorder=1)
        axes.annotate(
            f" {limit:g}", (1.0, limit), xycoords=("axes fraction", "data"), va="center",
            fontsize=8, color=plotting.LIMIT_COLOR,
        )  # fmt: skip


def _draw_shares(axes: Axes, errors: Sequence[float | None], end: float, **style: Any) -> None:
    """Draw the per cent of frames below a value, up to `end`; None counts as never below."""
    known = sorted(error for error in errors if error is not None)
    if known:
        shares = np.arange(1, len(known) + 1) / len(errors) * 100
        axes.step([*known, end], [*shares, shares[-1]], where="post", lw=2, **style)


def _scatter(axes: Axes, xyz: Matrix, **style: Any) -> None:
    if len(xyz):
        axes.scatter(xyz[:, 0], xyz[:, 1], **style)


def _positions(poses: Sequence[PoseRecord | None]) -> Matrix:
    return np.array([pose.xyz for pose in poses if pose is not None]).reshape(-1, 3)


def _place(frame: FrameResult) -> PoseRecord | None:
    """Return where to draw a frame: its pose, else the truth, the candidate, or the prior."""
    prior = frame.prior.pose if frame.prior is not None else None
    return frame.pose or frame.truth or frame.candidate or prior


def _prior_error(frame: FrameResult) -> PoseError | None:
    return frame.prior.error if frame.prior is not None else None


def _value(error: PoseError | None, field: str) -> float | None:
    return None if error is None else max(getattr(error, field), FLOOR)


def _over_time(
    frames: Sequence[FrameResult], values: Sequence[float | None]
) -> list[tuple[Status, float, float]]:
    """Return status, seconds since the first frame, and value, of the frames that have one."""
    return [
        (frame.status, _time_s(frame, frames[0]), value)
        for frame, value in zip(frames, values, strict=True)
        if value is not None
    ]


def _time_s(frame: FrameResult, first: FrameResult) -> float:
    return (frame.stamp_ns - first.stamp_ns) * 1e-9


def _round_origin(xyz: Matrix) -> Matrix:
    if len(xyz) == 0 or np.abs(xyz).max() < FAR_AWAY_M:
        return np.zeros(3)
    return np.round(xyz.mean(axis=0), -2)


def _axis_label(axis: str, offset: float) -> str:
    return f"{axis} (m)" if offset == 0 else f"{axis} - {offset:.0f} (m)"


def _size_for(xyz: Matrix) -> tuple[float, float]:
    """Return a figure size in inches that suits the extent of the drive."""
    extent = np.ptp(xyz[:, :2], axis=0) if len(xyz) else np.ones(2)
    ratio = float(np.clip((extent[1] + 1) / (extent[0] + 1), 0.35, 0.75))
    return 10.0, 1.2 + 8.5 * ratio
