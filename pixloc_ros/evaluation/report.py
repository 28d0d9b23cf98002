"""Write the files of a run: results for programs, and a folder of pictures for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixloc_ros.common import image_files
from pixloc_ros.common.atomic_write import remove, write_text
from pixloc_ros.evaluation.frames import (
    FRAMES_FILE,
    FrameResult,
    PoseError,
    trajectory_of,
    write_frames,
)
from pixloc_ros.evaluation.metrics import Summary, evaluate
from pixloc_ros.evaluation.plots import write_plots
from pixloc_ros.evaluation.tables import markdown_table, pose_error, summary_rows, worst_frames
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import write_poses, write_tum
from pixloc_ros.types import Estimate
from pixloc_ros.visualization.overlay import draw_estimate

Image = NDArray[np.uint8]
LoadImage = Callable[[Estimate], Image | None]

TRAJECTORY_FILE, POSES_FILE, SUMMARY_FILE = "trajectory.txt", "poses.txt", "summary.json"
REPORT_FILE = "report.md"
CAPTIONS = {
    "trajectory": "From above: position errors by colour, frames without a pose as marks.",
    "errors": "Errors over time, with the thresholds of the recall.",
    "cumulative": "Share of all frames below an error, of the estimates and of their priors.",
    "prior": "What the alignment made of each prior; below the line it helped.",
    "quality": "What the localizer knows without truth.",
    "overlay_best": "The best localized frame: map points at the prior, and after the alignment.",
    "overlay_median": "The median localized frame.",
    "overlay_worst": "The worst localized frame.",
}


def write_run(
    folder: str | Path,
    estimates: Sequence[Estimate],
    frames: Sequence[FrameResult],
    provenance: Mapping[str, Any],
) -> Summary:
    """Write trajectory.txt and poses.txt (OK frames only), frames.jsonl and summary.json.

    frames: the records of the estimates.

    An old summary is deleted first and the new one written last, so that it always matches the
    other files.

    provenance: map_sha256, weights_sha256, and anything else worth keeping. Raises DataError if the
    folder cannot be written to.
    """
    folder = Path(folder)
    summary = evaluate(frames, provenance=provenance)
    remove(folder / SUMMARY_FILE)
    write_tum(folder / TRAJECTORY_FILE, trajectory_of(frames))
    write_poses(folder / POSES_FILE, _camera_poses(estimates))
    write_frames(folder / FRAMES_FILE, frames)
    write_summary(folder, summary)
    return summary


def write_summary(folder: str | Path, summary: Summary) -> None:
    """Write summary.json."""
    write_text(Path(folder) / SUMMARY_FILE, summary.model_dump_json(indent=2) + "\n")


def write_report(
    folder: str | Path,
    estimates: Sequence[Estimate],
    frames: Sequence[FrameResult],
    summary: Summary,
    load_image: LoadImage,
    keyframe_xyz: ArrayLike | None = None,
) -> Path:
    """Write plots, three overlays and report.md; return the path of report.md.

    frames: the records of the estimates.

    load_image: returns an estimate's full query image (H, W, 3) RGB, or None if it is gone.
    keyframe_xyz: (M, 3) positions of the map's reference images, in metres.
    """
    folder = Path(folder)
    plots = write_plots(folder, frames, keyframe_xyz)
    overlays = _write_overlays(folder, estimates, frames, load_image)
    return write_page(folder, frames, summary, [*overlays, *plots])


def report_on(folder: Path, frames: Sequence[FrameResult], provenance: dict[str, Any]) -> Summary:
    """Write summary.json, plots and report.md for frames whose images are not available."""
    summary = evaluate(frames, provenance=provenance)
    write_summary(folder, summary)
    write_page(folder, frames, summary, write_plots(folder, frames))
    return summary


def write_page(
    folder: Path, frames: Sequence[FrameResult], summary: Summary, pictures: Sequence[Path]
) -> Path:
    """Write report.md for pictures in the same folder."""
    parts = [
        "# Localization report\n",
        markdown_table([("figure", "value"), *summary_rows(summary)]),
    ]
    parts += [f"![{p.stem}]({p.name})\n\n{CAPTIONS.get(p.stem, '')}\n" for p in pictures]
    parts += ["## Frames to look at first\n", markdown_table(worst_frames(frames))]
    if summary.provenance:
        rows = ((key, str(value)) for key, value in summary.provenance.items())
        parts += ["## How it was made\n", markdown_table([("what", "value"), *rows])]
    write_text(folder / REPORT_FILE, "\n".join(parts))
    return folder / REPORT_FILE


def pick_overlays(estimates: Sequence[Estimate], frames: Sequence[FrameResult]) -> dict[str, int]:
    """Return indices of the best, median and worst frame by position error, or else by cost.

    Localized frames are ranked; if there are none, aligned ones.
    """
    aligned = [i for i, estimate in enumerate(estimates) if estimate.alignment is not None]
    chosen = [i for i in aligned if estimates[i].ok] or aligned
    errors = {i: e.translation_m for i in chosen if (e := _error(frames[i])) is not None}
    costs = {i: a.cost for i in chosen if (a := estimates[i].alignment) and np.isfinite(a.cost)}
    scores = errors or costs
    if not scores:
        return {}
    ranked = sorted(scores, key=scores.__getitem__)
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


def _error(frame: FrameResult) -> PoseError | None:
    return frame.error or frame.candidate_error


def _write_overlays(
    folder: Path, estimates: Sequence[Estimate], frames: Sequence[FrameResult], load: LoadImage
) -> list[Path]:
    paths = []
    for name, i in pick_overlays(estimates, frames).items():
        image_rgb = load(estimates[i])
        if image_rgb is not None:
            picture = draw_estimate(image_rgb, estimates[i], _error_note(frames[i]))
            paths.append(folder / f"overlay_{name}.jpg")
            image_files.write(paths[-1], picture)
    return paths


def _error_note(frame: FrameResult) -> str:
    found = _error(frame)
    return f"error {pose_error(found.translation_m, found.rotation_deg)}" if found else ""


def _camera_poses(estimates: Sequence[Estimate]) -> dict[str, NDArray[np.float64]]:
    """Return T_cam_map by name, of localized frames whose alignment was kept."""
    return {
        estimate.name or str(estimate.stamp_ns): se3.inverse(estimate.alignment.T_map_cam)
        for estimate in estimates
        if estimate.ok and estimate.alignment is not None
    }
