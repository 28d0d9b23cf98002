"""`research landscape`: the cost around the true pose, and the basins of a point.

The second picture is like Figure 5 of the paper: for one map point and each level, the pixels of
the query from which descent on its residual ends at the point's true position.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import Stage
from pixloc_ros.cli import shots as cli
from pixloc_ros.cli.settings import MapOption, SetOption, SettingsOptions
from pixloc_ros.common import image_files
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.features.sampling import FeatureLevel
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.visualization import drawing, plotting
from research.descent import Descent, offsets

FORWARD_M, LATERAL_M, YAW_DEG = (np.linspace(-s, s, 25) for s in (6.0, 4.0, 12.0))
EVERY_POINT = 10  # of the view, in the table
HOPS = 12  # doublings of a path: 4096 pixels
NEAR_PX = 1.5  # of a level, between the end of descent and the true position


@torch.inference_mode()
def costs(descent: Descent, level: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean robust costs over (forward, lateral) and over (lateral, yaw), each (25, 25)."""
    system = descent.aligner.system(descent.observation, Stage(level, 0, None))
    forward, lateral, yaw = (
        offsets(axis, sizes.tolist())
        for axis, sizes in (("forward", FORWARD_M), ("lateral", LATERAL_M), ("yaw", YAW_DEG))
    )
    planes = []
    for first, second in ((forward, lateral), (lateral, yaw)):
        rows = [system.cost(descent.initial_poses(first[i] @ second)) for i in range(len(first))]
        planes.append(torch.stack(rows).double().numpy())
    return planes[0], planes[1]


def basin_of_point(
    level: FeatureLevel, reference: Tensor, place: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return the pixels (H, W) whose descent ends at a position (2,), and slope angles in rad.

    Every pixel moves repeatedly to its lowest neighbour. reference: (C,) of the map point.
    """
    features = level.rows[:, :-1].reshape(level.height, level.width, -1)
    cost = (features - reference).square().sum(-1).numpy()
    padded = np.pad(cost, 1, constant_values=np.inf)
    height, width = cost.shape
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    stack = np.stack([padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in around])
    step = np.array(around)[stack.argmin(0)]  # (H, W, 2)
    rows, columns = np.mgrid[:height, :width]
    target = ((rows + step[..., 0]) * width + columns + step[..., 1]).ravel()
    for _ in range(HOPS):
        target = target[target]
    end = np.column_stack([target % width, target // width])
    arrives = np.linalg.norm(end - place, axis=-1) < NEAR_PX
    slope_y, slope_x = np.gradient(cost)
    return arrives.reshape(height, width), np.arctan2(slope_y, slope_x)


def basins_of_point(
    descent: Descent, point: int
) -> list[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Return the result of `basin_of_point` for a point of the view, on each level."""
    pyramid, view = descent.observation.pyramid, descent.observation.view
    at = descent.pixels(descent.truth)[0, point].double().numpy()
    places = [(at + 0.5) * np.array(pyramid.scale) / lv.stride - 0.5 for lv in pyramid.levels]
    return [
        basin_of_point(level, features[point], place)
        for level, features, place in zip(pyramid.levels, view.features, places, strict=True)
    ]


def draw_basins(descent: Descent, image_rgb: NDArray[np.uint8], point: int) -> NDArray[np.uint8]:
    """Draw the query once per level, coloured by the slope in the point's basin."""
    at = descent.pixels(descent.truth)[0, point].double().numpy()
    panels = []
    basins = zip(descent.observation.pyramid.levels, basins_of_point(descent, point), strict=True)
    for level, (arrives, angle) in basins:
        shown, share = _coloured(image_rgb, arrives, angle), arrives.mean()
        drawing.circle(shown, at, 3.0 * drawing.unit(shown), (255, 255, 255), thickness=2)
        text = f"stride {level.stride}: {share:.1%} of the image"
        panels.append(drawing.with_caption(shown, text, drawing.INK, ""))
    return np.hstack(panels)


def _coloured(
    image_rgb: NDArray[np.uint8], arrives: NDArray[np.bool_], angle: NDArray[np.float64]
) -> NDArray[np.uint8]:
    size = image_rgb.shape[1::-1]
    grey = cv2.cvtColor(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    hue = ((angle % (2 * np.pi)) * 90 / np.pi).astype(np.uint8)
    hsv = np.dstack([hue, np.full_like(hue, 200), np.full_like(hue, 255)])
    color = cv2.resize(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), size, interpolation=cv2.INTER_NEAREST)
    mask = cv2.resize(arrives.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return np.where(mask[..., None], grey // 2 + color // 2, grey // 4 * 3)


def write_costs(
    path: Path, planes: Sequence[tuple[NDArray, NDArray]], strides: Sequence[int]
) -> None:
    """Draw two rows of panels, one column per level. PNG."""
    figure, panels = plotting.new_figure(2, len(planes), 3.3 * len(planes), 6.0)
    axes = ((FORWARD_M, LATERAL_M, "forward (m)", "lateral (m)"),
            (LATERAL_M, YAW_DEG, "lateral (m)", "yaw (deg)"))  # fmt: skip
    for column, (both, stride) in enumerate(zip(planes, strides, strict=True)):
        for row, (plane, (first, second, x, y)) in enumerate(zip(both, axes, strict=True)):
            panel = panels[row * len(planes) + column]
            drawn = panel.contourf(first, second, plane.T, levels=20, cmap="viridis")
            panel.plot(0, 0, "w+", ms=10)
            panel.set(xlabel=x, ylabel=y if column == 0 else "", title=f"stride {stride}")
            figure.colorbar(drawn, ax=panel)
    plotting.save(figure, path)


def landscape(
    map_folder: MapOption,
    images: cli.ImagesOption,
    meta: cli.MetaOption,
    costs_png: Annotated[Path, typer.Option("--costs", help="PNG of the cost around the truth")],
    basins_jpg: Annotated[Path, typer.Option("--basins", help="picture of one point's basins")],
    frame: Annotated[int, typer.Option(min=0, help="number of the image")] = 0,
    point: Annotated[int, typer.Option(min=0, help="number of the point in the view")] = 0,
    axes: cli.AxesOption = "keep",
    settings: SetOption = None,
) -> None:
    """Draw the cost around the true pose of an image, and the basins of one of its points.

    Example: python -m research landscape --map town --images drive/images --meta drive/meta.json
    --frame 40 --point 100 --costs costs.png --basins basins.jpg
    """
    localizer = Localizer(SettingsOptions(given=settings).resolve(map_folder))
    (posed,) = posed_frames(read_posed_images(meta, images, axes), [frame])
    descent = Descent.of(localizer, *posed)
    levels = descent.observation.pyramid.levels
    planes = [costs(descent, number) for number in range(len(levels))]
    write_costs(costs_png, planes, [level.stride for level in levels])
    image_files.write(basins_jpg, draw_basins(descent, posed[0].image_rgb, point))
    Console().print(_basin_table(descent, levels))


def _basin_table(descent: Descent, levels: Sequence[FeatureLevel]) -> Table:
    """Measure the basins of every tenth point in the image."""
    at = descent.pixels(descent.truth)[0]
    shown = torch.nonzero(descent.observation.camera.in_image(at))[::EVERY_POINT, 0].tolist()
    shares = np.array([[a.mean() for a, _ in basins_of_point(descent, i)] for i in shown])
    title = f"Basins of {len(shown)} points, shares of the image"
    table = Table("stride", "median", "upper decile", "points without any", title=title)
    for level, share in zip(levels, shares.T, strict=True):
        cells = np.median(share), np.quantile(share, 0.9), (share == 0).mean()
        table.add_row(str(level.stride), *(f"{cell:.2%}" for cell in cells))
    return table
