"""Draw map points into the image: where the prior puts them, and where the alignment does."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.geometry import se3
from pixloc_ros.types import Alignment, Estimate, Status
from pixloc_ros.visualization import drawing
from pixloc_ros.visualization.drawing import Color, Image

WORST_RESIDUAL = 1.0  # end of the colour map; unrelated unit vectors differ by 1.4
RESIDUAL_SCALE = ("residual 0", f">{WORST_RESIDUAL:g}")
PRIOR_COLOR: Color = (215, 220, 228)
TRAVEL_COLOR: Color = (255, 214, 70)
STATUS_COLORS: dict[Status, Color] = {
    Status.OK: (86, 200, 120),
    Status.REJECTED: (240, 96, 72),
    Status.AMBIGUOUS: (245, 176, 40),
    Status.FAILED: (170, 170, 170),
}


def draw_estimate(image_rgb: Image, estimate: Estimate, note: str = "") -> Image:
    """Draw a picture of any estimate; `note` is appended to the caption."""
    caption = " | ".join(filter(None, [estimate.name, *_facts(estimate), note]))
    color = STATUS_COLORS[estimate.status]
    if estimate.alignment is None:
        return drawing.with_caption(drawing.fit(image_rgb), str(estimate.status), color, caption)
    return draw_alignment(
        image_rgb, estimate.alignment.of_camera(0), str(estimate.status), caption, color
    )


def draw_alignment(
    image_rgb: Image,
    alignment: Alignment,
    title: str = "",
    caption: str = "",
    color: Color = drawing.INK,
) -> Image:
    """Draw before and after: points at the prior (hollow), and at the result, coloured by residual.

    image_rgb (H, W, 3) is the full query image, to which the alignment's pixels refer. Wide images
    are stacked, others are put side by side. Title (in `color`) and caption go below.
    """
    panel = drawing.fit(image_rgb)
    scale = panel.shape[1] / image_rgb.shape[1]
    prior, pose = (
        (p.astype(np.float64) + 0.5) * scale - 0.5
        for p in (alignment.pixels_prior, alignment.pixels)
    )
    before = _panel_before(panel, prior, pose)
    after = _panel_after(panel, pose, alignment.residuals)
    drawing.label(before, _describe_prior(alignment))
    drawing.label(after, f"aligned: {np.isfinite(alignment.residuals).sum()} points in view")
    return drawing.with_caption(
        drawing.join([before, after]), title, color, caption, RESIDUAL_SCALE
    )


def _facts(estimate: Estimate) -> list[str]:
    if estimate.alignment is None:
        return [estimate.message or str(estimate.reason)]
    facts = [
        f"cost {estimate.alignment.cost:.3f}",
        f"inliers {100 * estimate.alignment.inlier_share:.0f} %",
    ]
    return facts if estimate.ok else [estimate.message or str(estimate.reason), *facts]


def _describe_prior(alignment: Alignment) -> str:
    if not np.isfinite(alignment.T_map_cam).all():
        return "prior"
    shift_m = se3.distance_m(alignment.T_map_cam_prior, alignment.T_map_cam)
    turn_deg = se3.angle_deg(alignment.T_map_cam_prior, alignment.T_map_cam)
    return f"prior: {shift_m:.2f} m, {turn_deg:.2f} deg from the result"


def _panel_before(panel: Image, prior: NDArray, pose: NDArray) -> Image:
    canvas = drawing.dim(panel, 0.6)
    lines = canvas.copy()
    shown = drawing.drawable(prior, canvas)
    travelled = shown & drawing.drawable(pose, canvas)
    for start, end in zip(prior[travelled], pose[travelled], strict=True):
        drawing.line(lines, start, end, TRAVEL_COLOR)
    canvas = cv2.addWeighted(lines, 0.6, canvas, 0.4, 0.0)
    for point in prior[shown]:
        drawing.circle(canvas, point, 2.6 * drawing.unit(canvas), PRIOR_COLOR, thickness=1)
    return canvas


def _panel_after(panel: Image, pose: NDArray, residuals: NDArray) -> Image:
    canvas = drawing.dim(panel, 0.85)
    unit = drawing.unit(canvas)
    colors = drawing.colors(residuals / WORST_RESIDUAL).reshape(-1, 3)
    shown = np.flatnonzero(np.isfinite(residuals) & drawing.drawable(pose, canvas))
    for i in shown[np.argsort(-residuals[shown])]:  # good points on top
        drawing.circle(canvas, pose[i], 3.8 * unit, (0, 0, 0))
        drawing.circle(canvas, pose[i], 2.9 * unit, tuple(colors[i].tolist()))
    return canvas
