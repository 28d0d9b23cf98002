"""What became of a drive, to look at: pictures, a page, and the figures as JSON."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pixloc_ros.common import image_files
from pixloc_ros.common.atomic_write import atomic_folder
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.from_bag.frames import KeyframeImage, UncoveredSpan
from pixloc_ros.maps.build.from_bag.gates import KeyframeCoverage, MapCheck, WeakStretch
from pixloc_ros.maps.build.work_folder import writing
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel
from pixloc_ros.maps.files.recorded_drive import RecordedFixes, Stamps

PAGE = "index.html"
FIGURES = "report.json"
SAMPLES = 6  # keyframes that are shown with their points
SAMPLE_WIDTH_PX = 640
MAX_SPANS = 4  # of images without odometry that the summary names one by one
MAX_POINTS = 50_000  # that are drawn
HEIGHT_SHARE = (2, 98)  # per cent of the points that are drawn
WEAK_COLOUR, GOOD_COLOUR, FIX_COLOUR = "#D55E00", "#0072B2", "#009E73"


@dataclass(frozen=True, slots=True, eq=False)
class MappingReport:
    """A map of drives before it is written: the model, and how good it is."""

    drives: tuple[str, ...]
    keyframes: tuple[KeyframeImage, ...]  # N
    images: int
    unreadable: int
    uncovered: tuple[UncoveredSpan, ...]
    model: ColmapModel
    T_map_cam: Matrix  # (N, 4, 4)
    T_map_base: Matrix  # (N, 4, 4)
    placed: NDArray[np.bool_]  # (N,)
    weak: NDArray[np.bool_]  # (N,)
    coverage: KeyframeCoverage
    stretches: tuple[WeakStretch, ...]
    checks: tuple[MapCheck, ...]
    fixes: tuple[RecordedFixes | None, ...]  # by drive
    fix_errors: Mapping[int, tuple[Stamps, Matrix]]  # by drive, metres in the map
    odometry_scale: tuple[float, ...]  # by drive, where it was estimated
    fix_delay_s: tuple[float, ...]
    loops: int
    refined_intrinsics: bool
    metric: bool

    @property
    def summary(self) -> str:
        """The map in a few lines."""
        lines = [
            f"{int(self.placed.sum())} of {len(self.placed)} keyframes placed, of {self.images} "
            f"images; {len(self.model.point_ids)} points",
            *(f"{'good' if check.good else 'BAD '}  {check}" for check in self.checks),
        ]
        lines += left_out(self.unreadable, self.uncovered)
        if self.loops:
            lines.append(f"{self.loops} loops closed")
        for name, scale, delay_s in zip(
            self.drives, self.odometry_scale, self.fix_delay_s, strict=False
        ):
            lines.append(f"{name}: odometry x {scale:.4f}, fixes come {1e3 * delay_s:.0f} ms late")
        if self.refined_intrinsics:
            lines.append("the calibration was refined: see the cameras of the map")
        lines += [f"weak: {stretch}" for stretch in self.stretches]
        return "\n".join(lines)

    def figures(self) -> dict[str, object]:
        """All figures by name."""
        return {
            "drives": list(self.drives),
            "images": self.images,
            "images_unreadable": self.unreadable,
            "images_without_odometry": [asdict(span) for span in self.uncovered],
            "keyframes": len(self.placed),
            "keyframes_placed": int(self.placed.sum()),
            "points": len(self.model.point_ids),
            "metric": self.metric,
            "loops_closed": self.loops,
            "odometry_scale": list(self.odometry_scale),
            "fix_delay_s": list(self.fix_delay_s),
            "refined_intrinsics": self.refined_intrinsics,
            "checks": [
                {"name": c.name, "value": c.value, "limit": c.limit, "good": bool(c.good)}
                for c in self.checks
            ],
            "weak_stretches": [str(stretch) for stretch in self.stretches],
        }


def left_out(unreadable: int, uncovered: Sequence[UncoveredSpan]) -> Iterator[str]:
    """Yield a line about images that cannot be used, and one per drive about missing odometry."""
    if unreadable:
        yield f"{unreadable} images left out: not decodable, or not of the calibrated size"
    for drive in dict.fromkeys(span.drive for span in uncovered):
        spans = [span for span in uncovered if span.drive == drive]
        words = [str(span) for span in spans[:MAX_SPANS]]
        if rest := spans[MAX_SPANS:]:
            words.append(f"{sum(span.images for span in rest)} in {len(rest)} more places")
        count = sum(span.images for span in spans)
        yield f"{drive}: {count} images left out, not covered by odometry: {', '.join(words)}"


def write_report(found: MappingReport, folder: Path, images: Path) -> None:
    """Write pictures, report.json and a page that holds all of them, as a whole folder.

    images: folder that the keyframes' names start from. Raises MapError where it cannot.
    """
    pictures = {
        "from_above": _figure_png(_from_above(found)),
        "coverage": _figure_png(_coverage(found)),
        "keyframes": _samples(found, images),
    }
    if found.fix_errors:
        pictures["fixes"] = _figure_png(_fix_residuals(found))
    with writing(folder), atomic_folder(folder.absolute()) as new:
        for name, content in pictures.items():
            (new / f"{name}.png").write_bytes(content)
        (new / FIGURES).write_text(json.dumps(found.figures(), indent=2) + "\n")
        (new / PAGE).write_text(_page(found, pictures), encoding="utf-8")


def _from_above(found: MappingReport) -> Figure:
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    points = found.model.points_world
    way = found.T_map_base[:, :3, 3]
    points = points[_shown(points, way)]
    axes.scatter(points[:, 0], points[:, 1], s=3, c="#888888", lw=0, alpha=0.5, label="points")
    for fixes in found.fixes:
        if fixes is not None:
            x, y, _ = fixes.positions_map.T
            axes.plot(x, y, "-", lw=4, color=FIX_COLOUR, alpha=0.6, label="GNSS fixes")
    _scatter_keyframes(axes, way, found)
    unit = "m" if found.metric else "units"
    axes.set(title="The drive from above", xlabel=f"x [{unit}]", ylabel=f"y [{unit}]")
    axes.set_aspect("equal", "datalim")
    _legend(axes)
    return figure


def _shown(points: Matrix, way: Matrix) -> NDArray[np.intp]:
    """Points near the way, and no more than can be told apart."""
    reach = 0.1 * float(np.ptp(way[:, :2], axis=0).max()) + 30.0
    low, high = way[:, :2].min(0) - reach, way[:, :2].max(0) + reach
    inside = np.flatnonzero(((points[:, :2] >= low) & (points[:, :2] <= high)).all(-1))
    return inside[:: max(1, len(inside) // MAX_POINTS)]


def _scatter_keyframes(axes: Axes, way: Matrix, found: MappingReport) -> None:
    good = found.placed & ~found.weak
    for chosen, colour, label in (
        (good, GOOD_COLOUR, "keyframes"),
        (found.placed & found.weak, WEAK_COLOUR, "weak keyframes"),
    ):
        if chosen.any():
            axes.scatter(way[chosen, 0], way[chosen, 1], s=14, c=colour, label=label, zorder=3)
    lost = ~found.placed
    if lost.any():
        axes.scatter(
            way[lost, 0], way[lost, 1], marker="x", c="black", label="not placed", zorder=3
        )


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    if known:
        axes.legend(known.values(), known.keys(), loc="best", framealpha=0.9)


def _coverage(found: MappingReport) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    number = np.arange(len(found.placed))
    colours = np.where(found.weak, WEAK_COLOUR, GOOD_COLOUR)
    upper.bar(number, found.coverage.points, width=1.0, color=colours)
    upper.set(ylabel="points", title="What each keyframe sees (weak ones orange)")
    lower.bar(number, found.coverage.neighbours, width=1.0, color=colours)
    lower.set(ylabel="neighbours", xlabel="keyframe, in the order of the drive")
    return figure


def _fix_residuals(found: MappingReport) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    for number, (stamps_ns, errors) in found.fix_errors.items():
        t = (stamps_ns - stamps_ns[0]) / 1e9
        for values, name in zip(errors.T, ("x", "y", "z"), strict=True):
            axes.plot(t, values, label=f"{found.drives[number]}: {name}", lw=1.2)
    axes.axhline(0.0, color="black", lw=0.8)
    axes.set(
        xlabel="time [s]", ylabel="fix less map [m]", title="How far GNSS fixes are off the map"
    )
    _legend(axes)
    return figure


def _samples(found: MappingReport, images: Path) -> bytes:
    """Some keyframes with their points, coloured by reprojection error, weak ones first."""
    by_name = {image.name: image for image in found.model.images}
    usable = [i for i, k in enumerate(found.keyframes) if k.name in by_name]
    weakest = sorted(usable, key=lambda i: found.coverage.points[i])[: SAMPLES // 3]
    others = [usable[i] for i in np.linspace(0, len(usable) - 1, SAMPLES).astype(int)]
    chosen = [*weakest, *[i for i in others if i not in weakest]][:SAMPLES]
    pictures = []
    for i in sorted(set(chosen)):
        name = found.keyframes[i].name
        image_rgb = image_files.read(images / name)
        if image_rgb is not None:
            pictures.append(_with_points(image_rgb, by_name[name], found, i))
    height = max(picture.shape[0] for picture in pictures)
    padded = [
        cv2.copyMakeBorder(
            p, 0, height - p.shape[0] + 4, 0, 4, cv2.BORDER_CONSTANT, value=(255,) * 3
        )
        for p in pictures
    ]
    if len(padded) % 2:
        padded.append(np.full_like(padded[0], 255))
    rows = [np.hstack(padded[i : i + 2]) for i in range(0, len(padded), 2)]
    return image_files.encode(np.vstack(rows), ".png")


def _with_points(
    image_rgb: NDArray[np.uint8], image: ColmapImage, found: MappingReport, index: int
) -> NDArray[np.uint8]:
    scale = SAMPLE_WIDTH_PX / image_rgb.shape[1]
    small = cv2.resize(image_rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    kept = image.point_ids >= 0
    row = np.searchsorted(found.model.point_ids, image.point_ids[kept])
    errors_px = found.model.errors_px[row]
    for (x, y), error_px in zip(image.pixels[kept] * scale, errors_px, strict=True):
        bad = float(np.clip(error_px / 2.0, 0.0, 1.0))
        colour = (int(255 * bad), int(200 * (1 - bad)), 60)
        cv2.circle(small, (round(x), round(y)), 2, colour, -1, cv2.LINE_AA)
    text = f"keyframe {index}: {int(found.coverage.points[index])} points"
    cv2.rectangle(small, (0, 0), (11 * len(text), 22), (255, 255, 255), -1)
    cv2.putText(small, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.asarray(small, np.uint8)


def _figure_png(figure: Figure) -> bytes:
    from io import BytesIO

    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


_TITLES = {
    "from_above": "From above",
    "coverage": "Coverage",
    "fixes": "Fixes",
    "keyframes": "Keyframes with their points: green fits to the pixel, red is two pixels off",
}

_STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem}
img {max-width: 100%}
table {border-collapse: collapse}
td, th {padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left}
.bad {color: #D55E00; font-weight: 600}
.good {color: #0072B2}
"""


def _page(found: MappingReport, pictures: Mapping[str, bytes]) -> str:
    name = html.escape(", ".join(found.drives))
    rows = "".join(_row(check) for check in found.checks)
    verdict = "good" if all(check.good for check in found.checks) else "not good"
    stretches = "".join(f"<li>{html.escape(str(stretch))}</li>" for stretch in found.stretches)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Map of {name}</title>",
        f"<style>{_STYLE}</style><h1>Map of {name}: {verdict}</h1>",
        f"<table><tr><th>figure<th>value<th>limit<th></tr>{rows}</table>",
        f"<pre>{html.escape(found.summary)}</pre>",
        f"<h2>Weak stretches</h2><ul>{stretches or '<li>none</li>'}</ul>",
    ]
    for key, title in _TITLES.items():
        if key in pictures:
            data = base64.b64encode(pictures[key]).decode()
            parts.append(
                f'<h2>{html.escape(title)}</h2><img alt="{key}" src="data:image/png;base64,{data}">'
            )
    return "\n".join(parts) + "</html>\n"


def _row(check: MapCheck) -> str:
    bound = "at least" if check.at_least else "at most"
    word = "good" if check.good else "bad"
    return (
        f"<tr><td>{html.escape(check.name)}<td>{check.value:.3g}{check.unit}"
        f"<td>{bound} {check.limit:g}{check.unit}<td class={word}>{word}</tr>"
    )
