"""Load what can be evaluated: the folder of a run, a TUM trajectory, or named camera poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixloc_ros.common.foreign_files import read_json, refusing
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.compare import TOLERANCE_S, compare_poses, compare_trajectories
from pixloc_ros.evaluation.frames import FrameResult, read_frames, with_truth
from pixloc_ros.evaluation.metrics import Summary
from pixloc_ros.evaluation.partial_run import PARTIAL_FOLDER
from pixloc_ros.evaluation.report import SUMMARY_FILE
from pixloc_ros.geometry.trajectory import has_named_poses, read_poses, read_tum


def load_frames(
    estimate: Path, ground_truth: Path | None, tolerance_s: float = TOLERANCE_S
) -> list[FrameResult]:
    """Load the frames of an estimate, compared with the truth.

    estimate: run folder or frames.jsonl (keeps its own truth if none is given), or a file of poses
    in the same format as ground_truth.

    Raises DataError for unreadable files, and if the two have nothing in common.
    """
    if not estimate.exists():
        raise DataError(f"{estimate} does not exist")
    if estimate.is_dir() or estimate.suffix == ".jsonl":
        frames = read_frames(estimate)
        if ground_truth is not None:
            truth = read_tum(ground_truth)
            frames = [with_truth(frame, truth.at(frame.stamp_ns)) for frame in frames]
    elif ground_truth is None:
        raise DataError(f"{estimate} holds poses only: add --ground-truth")
    elif has_named_poses(estimate):
        frames = compare_poses(read_poses(estimate), read_poses(ground_truth))
    else:
        frames = compare_trajectories(read_tum(estimate), read_tum(ground_truth), tolerance_s)
    if ground_truth is not None and not _comparable(frames):
        raise DataError(
            f"{estimate} and {ground_truth} have no frame in common; are stamps of the same clock?"
        )
    return frames


def load_provenance(estimate: Path) -> dict[str, Any]:
    """Return what a run's summary.json says about its map, weights, settings and completeness."""
    path = estimate / SUMMARY_FILE
    if not path.is_file():
        killed = estimate.absolute().name.partition("-")[0] == PARTIAL_FOLDER
        return {"interrupted": "by a kill, or still running"} if killed else {}
    content = read_json(path, DataError)
    with refusing(DataError, path):
        summary = Summary.model_validate(content)
    names = ("map_sha256", "weights_sha256", "interrupted")
    return {**summary.provenance, **{name: getattr(summary, name) for name in names}}


def _comparable(frames: list[FrameResult]) -> bool:
    """Return whether any frame has truth and, if there are poses, any of them was compared."""
    has_poses = any(frame.ok for frame in frames)
    return any(f.truth is not None and (f.ok or not has_poses) for f in frames)
