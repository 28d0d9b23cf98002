"""Map points drawn into the image: where the prior had put them, and where the alignment did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.geometry import se3
from pixloc_ros.results import Alignment, Estimate, Status

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Color = tuple[int, int, int]

MIN_PANEL_WIDTH = 960  # smaller images are enlarged, so that text and points stay legible
MAX_PANEL_WIDTH = 1600
WORST_RESIDUAL = 1.0  # of two unit vectors that have nothing in common the norm is 1.4
SUBPIXEL_BITS = 4
GAP = 4
FONT = cv2.FONT_HERSHEY_SIMPLEX
INK: Color = (235, 235, 235)
PAPER: Color = (24, 26, 30)
PRIOR_COLOR: Color = (215, 220, 228)
TRAVEL_COLOR: Color = (255, 214, 70)
STATUS_COLORS: dict[Status, Color] = {
    Status.OK: (86, 200, 120),
    Status.REJECTED: (240, 96, 72),
    Status.AMBIGUOUS: (245, 176, 40),
    Status.FAILED: (170, 170, 170),
}


class HasConfidences(Protocol):
    """What is drawn of a FeaturePyramid: confidences (H_l, W_l) in 0..1, coarse to fine."""

    @property
    def confidences(self) -> Sequence[Tensor]: ...


def draw_estimate(image_rgb: Image, estimate: Estimate, note: str = "") -> Image:
    """The picture of one answer, whatever it is; `note` is appended to the caption."""
    caption = " | ".join(filter(None, [estimate.name, *_facts(estimate), note]))
    color = STATUS_COLORS[estimate.status]
    if estimate.alignment is None:
        return _with_caption(_fit(image_rgb), str(estimate.status), color, caption)
    return draw_alignment(image_rgb, estimate.alignment, str(estimate.status), caption, color)


def draw_alignment(
    image_rgb: Image, alignment: Alignment, title: str = "", caption: str = "", color: Color = INK
) -> Image:
    """Before and after: points at the prior (hollow), and at the result coloured by residual.

    image_rgb (H, W, 3) is the full query image, which the pixels of the alignment refer to. Wide
    images are stacked, others stand side by side. title (in `color`) and caption go below.
    """
    panel = _fit(image_rgb)
    scale = panel.shape[1] / image_rgb.shape[1]
    prior, pose = (
        (p.astype(np.float64) + 0.5) * scale - 0.5
        for p in (alignment.pixels_prior, alignment.pixels)
    )
    before = _panel_before(panel, prior, pose)
    after = _panel_after(panel, pose, alignment.residuals)
    _label(before, _describe_prior(alignment))
    _label(after, f"aligned: {np.isfinite(alignment.residuals).sum()} points in view")
    return _with_caption(_join([before, after]), title, color, caption, legend=True)


def draw_confidence(image_rgb: Image, pyramid: HasConfidences) -> Image:
    """The learned confidence of every level over the image, the finest first."""
    image = _fit(image_rgb, MIN_PANEL_WIDTH // 2, MIN_PANEL_WIDTH)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    panels = []
    for level, confidence in reversed(list(enumerate(pyramid.confidences))):
        heat = _colors(confidence.detach().float().cpu().numpy(), cv2.COLORMAP_INFERNO)
        heat = cv2.resize(heat, grey.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        panel = cv2.addWeighted(grey, 0.4, heat, 0.6, 0.0)
        _label(panel, f"level {level}: mean {float(confidence.mean()):.2f}")
        panels.append(panel)
    return _join(panels)


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


def _fit(
    image_rgb: Image, smallest: int = MIN_PANEL_WIDTH, largest: int = MAX_PANEL_WIDTH
) -> Image:
    """A copy of the image with a width between smallest and largest."""
    height, width = image_rgb.shape[:2]
    scale = min(max(width, smallest), largest) / width
    if scale == 1.0:
        return np.ascontiguousarray(image_rgb).copy()
    size = (round(width * scale), max(round(height * scale), 1))
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image_rgb, size, interpolation=method), dtype=np.uint8)


def _panel_before(panel: Image, prior: NDArray, pose: NDArray) -> Image:
    canvas = _dim(panel, 0.6)
    unit = _unit(canvas)
    lines = canvas.copy()
    for start, end in zip(prior, pose, strict=True):
        if _drawable(start, canvas) and _drawable(end, canvas):
            _line(lines, start, end, TRAVEL_COLOR)
    canvas = cv2.addWeighted(lines, 0.6, canvas, 0.4, 0.0)
    for point in prior:
        if _drawable(point, canvas):
            _circle(canvas, point, 2.6 * unit, PRIOR_COLOR, thickness=1)
    return canvas


def _panel_after(panel: Image, pose: NDArray, residuals: NDArray) -> Image:
    canvas = _dim(panel, 0.85)
    unit = _unit(canvas)
    colors = _colors(residuals / WORST_RESIDUAL).reshape(-1, 3)
    seen = [i for i in np.flatnonzero(np.isfinite(residuals)) if _drawable(pose[i], canvas)]
    for i in sorted(seen, key=lambda i: -float(residuals[i])):
        _circle(canvas, pose[i], 3.8 * unit, (0, 0, 0))
        _circle(canvas, pose[i], 2.9 * unit, tuple(colors[i].tolist()))
    return canvas


def _unit(canvas: Image) -> float:
    """Size of things drawn: 1 up to a width of 1200 pixels, then growing with it."""
    return max(canvas.shape[1] / 1200, 1.0)


def _dim(panel: Image, share: float) -> Image:
    return cv2.convertScaleAbs(panel, alpha=share)


def _colors(values: NDArray, colormap: int = cv2.COLORMAP_TURBO) -> Image:
    """RGB of values in 0..1; the ends of the map are too dark to see and left out."""
    low, high = (0, 255) if colormap != cv2.COLORMAP_TURBO else (30, 230)
    share = np.clip(np.nan_to_num(values, nan=1.0), 0.0, 1.0)
    indices = (low + share * (high - low)).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(indices, colormap), cv2.COLOR_BGR2RGB)


def _drawable(point: NDArray, canvas: Image) -> bool:
    """Near enough to the canvas for the fixed-point numbers of OpenCV; False for NaN."""
    return bool(np.all(np.abs(point) < 4 * max(canvas.shape)))


def _fixed(point: NDArray) -> tuple[int, int]:
    x, y = np.rint(point * (1 << SUBPIXEL_BITS)).astype(int).tolist()
    return x, y


def _circle(
    canvas: Image, point: NDArray, radius: float, color: Color, thickness: int = cv2.FILLED
) -> None:
    fixed_radius = round(radius * (1 << SUBPIXEL_BITS))
    cv2.circle(canvas, _fixed(point), fixed_radius, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _line(canvas: Image, start: NDArray, end: NDArray, color: Color) -> None:
    cv2.line(canvas, _fixed(start), _fixed(end), color, 1, cv2.LINE_AA, SUBPIXEL_BITS)


def _label(panel: Image, text: str) -> None:
    """Text in the upper left corner, on a dark ground."""
    size = 0.55 * _unit(panel)
    (width, height), base = cv2.getTextSize(text, FONT, size, 1)
    cv2.rectangle(panel, (0, 0), (width + 16, height + base + 12), PAPER, cv2.FILLED)
    cv2.putText(panel, text, (8, height + 8), FONT, size, INK, 1, cv2.LINE_AA)


def _join(panels: Sequence[Image]) -> Image:
    """Stack wide panels, put others side by side, with a gap between."""
    height, width = panels[0].shape[:2]
    stacked = width > 1.8 * height
    gap = np.full((GAP, width, 3) if stacked else (height, GAP, 3), PAPER, np.uint8)
    spaced = [part for panel in panels for part in (gap, panel)][1:]
    return np.concatenate(spaced, axis=0 if stacked else 1)


def _with_caption(
    picture: Image, title: str, color: Color, caption: str, legend: bool = False
) -> Image:
    """Add a strip below with title, caption and, on the right, the scale of residuals."""
    width = picture.shape[1]
    strip = np.full((44, width, 3), PAPER, np.uint8)
    cv2.putText(strip, title, (12, 29), FONT, 0.7, color, 2, cv2.LINE_AA)
    left = 12 + (cv2.getTextSize(title, FONT, 0.7, 2)[0][0] + 16 if title else 0)
    right = width - 12
    if legend:
        right = _draw_legend(strip) - 16
    text = _shorten(caption, right - left)
    cv2.putText(strip, text, (left, 28), FONT, 0.55, INK, 1, cv2.LINE_AA)
    return np.vstack([picture, strip])


def _draw_legend(strip: Image) -> int:
    """Draw the colours of residuals at the right end; returns where the legend begins."""
    right, bar = strip.shape[1] - 44, 140
    ramp = _colors(np.linspace(0.0, 1.0, bar)[None])
    strip[16:28, right - bar : right] = np.repeat(ramp, 12, axis=0)
    words = ((f">{WORST_RESIDUAL:g}", right + 6), ("residual 0", right - bar - 92))
    for text, x in words:
        cv2.putText(strip, text, (x, 27), FONT, 0.5, INK, 1, cv2.LINE_AA)
    return right - bar - 92


def _shorten(text: str, width: int) -> str:
    while text and cv2.getTextSize(text, FONT, 0.55, 1)[0][0] > width:
        text = text[:-4].rstrip(".") + "..." if len(text) > 4 else ""
    return text
