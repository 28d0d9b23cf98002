"""Write a run as one HTML page that needs no server and no network: trajectory, errors, evidence.

A click on a frame, or an arrow key, shows its details, and its picture if there is one.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common import image_files
from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.errors import ConfigError, DataError
from pixloc_ros.evaluation.frames import FrameResult

MAX_PICTURES = 300  # evenly chosen; at 20 kB each, the page stays below 10 MB
PICTURE_WIDTH_PX, PICTURE_QUALITY = 480, 80
COLORS = {"OK": "#1a9850", "REJECTED": "#d73027", "AMBIGUOUS": "#fdae61", "FAILED": "#7f7f7f"}

# Stamps, each with a function that decodes the image (H, W, 3) RGB; it may raise DataError.
Images = Iterable[tuple[int, Callable[[], "NDArray[np.uint8]"]]]
Trace = dict[str, Any]


def plotly_js() -> str:
    """Return the plotting library, to be embedded in the page. Raises ConfigError if missing."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError("pixloc view needs plotly: pip install 'pixloc_ros[page]'") from None
    return str(get_plotlyjs())


def write_page(
    path: str | Path,
    frames: Sequence[FrameResult],
    title: str,
    keyframe_xyz: NDArray | None = None,
    images: Images = (),
) -> None:
    """Write the page of a run. keyframe_xyz: (M, 3) positions of the map's keyframes, in metres."""
    pictures = dict(_pictures(frames, images))
    content = {
        "trajectory": _trajectory(frames, keyframe_xyz),
        "series": _series(frames),
        "frames": [_details(frame) for frame in frames],
        "pictures": pictures,
    }
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")  # hides any "</script>"
    page = _PAGE.replace("%TITLE%", html.escape(title)).replace("%COLORS%", json.dumps(COLORS))
    page = page.replace("%CONTENT%", text)
    write_text(Path(path), page.replace("%PLOTLY%", plotly_js()))


def _pictures(frames: Sequence[FrameResult], images: Images) -> Iterator[tuple[int, str]]:
    """Yield frame index and picture, for at most MAX_PICTURES frames."""
    shown = np.linspace(0, len(frames) - 1, min(MAX_PICTURES, len(frames))).astype(int)
    index_of = {frames[index].stamp_ns: int(index) for index in shown}
    for stamp_ns, decode in images:
        if (index := index_of.get(stamp_ns)) is not None:
            with suppress(DataError):  # an undecodable image is left out
                yield index, _encoded(decode())


def _trajectory(frames: Sequence[FrameResult], keyframe_xyz: NDArray | None) -> list[Trace]:
    """Draw keyframes, truth, and poses by status from above: x to the right, y up."""
    traces = []
    if keyframe_xyz is not None:
        x, y, *_ = np.round(np.asarray(keyframe_xyz, float), 3).T.tolist()
        traces.append(_points("keyframes of the map", x, y, "#c6c6c6", size=4))
    true = [frame.truth.xyz for frame in frames if frame.truth]
    if true:
        x, y, *_ = map(list, zip(*true, strict=True))
        traces.append({**_points("truth", x, y, "#4575b4"), "mode": "lines"})
    for status, color in COLORS.items():
        found = [
            (index, pose.xyz)
            for index, frame in enumerate(frames)
            if frame.status == status and (pose := frame.pose or frame.candidate)
        ]
        x, y = ([xyz[axis] for _, xyz in found] for axis in (0, 1))
        trace = _points(f"{status} ({len(found)})", x, y, color, size=7)
        if found:
            traces.append({**trace, "customdata": [index for index, _ in found]})
    return traces


def _points(name: str, x: list[float], y: list[float], color: str, size: int = 5) -> Trace:
    marker = {"color": color, "size": size}
    return {"name": name, "x": x, "y": y, "mode": "markers", "marker": marker, "type": "scatter"}


def _series(frames: Sequence[FrameResult]) -> list[dict[str, Any]]:
    """Return one diagram per quantity: its values by frame, None where unknown."""
    series: list[tuple[str, bool, list[float | None]]] = [
        ("position error [m]", True, [f.error.translation_m if f.error else None for f in frames]),
        ("rotation error [deg]", True, [f.error.rotation_deg if f.error else None for f in frames]),
        ("probability of being wrong", True, [f.wrong_probability for f in frames]),
        ("share of inliers", False, [f.inlier_share for f in frames]),
        ("cost", False, [f.cost for f in frames]),
        ("latency [ms]", False, [f.latency_ms for f in frames]),
    ]
    first_ns = frames[0].stamp_ns if frames else 0
    time_s = [(frame.stamp_ns - first_ns) * 1e-9 for frame in frames]
    colors = [COLORS.get(str(frame.status), "#7f7f7f") for frame in frames]
    return [
        {
            "title": name,
            "log": log and all(value > 0 for value in values if value is not None),
            "trace": {
                "x": time_s,
                "y": values,
                "mode": "markers",
                "marker": {"color": colors, "size": 5},
                "customdata": list(range(len(frames))),
                "type": "scatter",
            },
        }
        for name, log, values in series
        if any(value is not None for value in values)
    ]


def _details(frame: FrameResult) -> Mapping[str, Any]:
    """Return all non-empty fields of a frame's line in frames.jsonl, shown on a click."""
    content = frame.model_dump(mode="json", exclude_none=True)
    return {name: value for name, value in content.items() if value not in ((), [], {}, "")}


def _encoded(image_rgb: NDArray[np.uint8]) -> str:
    """Return a JPEG data URL, no wider than PICTURE_WIDTH_PX."""
    height, width = image_rgb.shape[:2]
    scale = min(1.0, PICTURE_WIDTH_PX / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
    jpeg = image_files.encode(small, ".jpg", PICTURE_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>%TITLE%</title>
<style>
body { font: 14px sans-serif; margin: 0; display: grid; grid-template-columns: 1fr 500px; }
#left { padding: 8px; }
#right { padding: 8px; position: sticky; top: 0; height: 100vh; overflow: auto; }
#picture { width: 480px; max-width: 100%; }
pre { white-space: pre-wrap; font-size: 12px; }
#verdict { border-left: 6px solid; padding-left: 8px; }
.series { height: 170px; }
</style>
<script>%PLOTLY%</script>
</head>
<body>
<div id="left"><h1>%TITLE%</h1><div id="map"></div><div id="series"></div></div>
<div id="right"><h2 id="name">Click on a frame, or use the arrow keys</h2>
<p id="verdict" hidden></p><img id="picture" alt="" hidden><pre id="details"></pre></div>
<script type="application/json" id="content">%CONTENT%</script>
<script>
const run = JSON.parse(document.getElementById("content").textContent);
const colors = %COLORS%;
const quiet = {displayModeBar: false, responsive: true};
const plots = [];
let chosen = -1;

function show(index) {
  if (index < 0 || index >= run.frames.length) return;
  chosen = index;
  const frame = run.frames[index];
  document.getElementById("name").textContent =
    `Frame ${index + 1} of ${run.frames.length}: ${frame.name}`;
  const verdict = document.getElementById("verdict");
  verdict.hidden = false;
  verdict.style.borderColor = colors[frame.status];
  const reason = frame.status === "OK" ? "" : ` ${frame.reason}`;
  verdict.textContent = `${frame.status}${reason}: ${frame.message || "no message"}`;
  document.getElementById("details").textContent = words(frame, "");
  const picture = document.getElementById("picture");
  picture.hidden = !(index in run.pictures);
  if (!picture.hidden) picture.src = run.pictures[index];
  const time = run.series.length ? run.series[0].trace.x[index] : 0;
  const line = {type: "line", x0: time, x1: time, y0: 0, y1: 1, yref: "paper",
                line: {color: "#333", width: 1}};
  for (const plot of plots) Plotly.relayout(plot, {shapes: [line]});
}

function words(value, indent) {  // numbers short, and those that belong together in one line
  if (typeof value === "number") {
    return String(Number(Math.abs(value) >= 1 ? value.toFixed(3) : value.toPrecision(4)));
  }
  if (Array.isArray(value)) return value.map(each => words(each, indent)).join("  ");
  if (value === null || typeof value !== "object") return String(value);
  return Object.entries(value).map(([name, inner]) => {
    const nested = inner !== null && typeof inner === "object" && !Array.isArray(inner);
    const told = words(inner, indent + "  ");
    return `${indent}${name}: ${nested ? "\\n" : ""}${told}`;
  }).join("\\n");
}

function span(axis) {  // of the trajectory, in metres
  const all = run.trajectory.flatMap(trace => trace[axis]);
  return Math.max(10, all.reduce((a, b) => Math.max(a, b), -Infinity)
    - all.reduce((a, b) => Math.min(a, b), Infinity));
}

function clickable(plot) {
  plot.on("plotly_click", event => {
    const index = event.points[0].customdata;
    if (index !== undefined) show(index);
  });
}

const map = document.getElementById("map");
const tall = 120 + map.clientWidth * 1.3 * span("y") / span("x");  // with its axes and legend
map.style.height = `${Math.min(0.6 * window.innerHeight, Math.max(260, tall))}px`;
Plotly.newPlot(map, run.trajectory, {
  margin: {t: 40, l: 50, r: 10, b: 40}, legend: {orientation: "h", y: 1.0, yanchor: "bottom"},
  xaxis: {title: {text: "x [m]"}},
  yaxis: {title: {text: "y [m]"}, scaleanchor: "x"}, hovermode: "closest"}, quiet);
clickable(map);
for (const each of run.series) {
  const plot = document.createElement("div");
  plot.className = "series";
  document.getElementById("series").appendChild(plot);
  Plotly.newPlot(plot, [each.trace], {
    margin: {t: 24, l: 60, r: 10, b: 24}, title: {text: each.title, font: {size: 13}},
    yaxis: {type: each.log ? "log" : "linear"}, hovermode: "closest"}, quiet);
  clickable(plot);
  plots.push(plot);
}
document.addEventListener("keydown", event => {
  if (event.key === "ArrowRight") show(chosen + 1);
  if (event.key === "ArrowLeft") show(chosen - 1);
});
document.body.dataset.ready = String(run.frames.length);
if (location.hash) show(Number(location.hash.slice(1)) - 1);
</script>
</body>
</html>
"""
