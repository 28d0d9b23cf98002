"""`research ablations`: the contribution of each part of the alignment (Table 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import Aligner
from pixloc_ros.alignment.policy import Policy
from pixloc_ros.alignment.robust import Barron
from pixloc_ros.cli import shots as cli
from pixloc_ros.cli.settings import MapOption, SetOption, SettingsOptions
from pixloc_ros.config import Config
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.image_pyramid import PyramidLocalizer
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from research import experiment

FIXED_DAMPING = 1e-2  # relative to the Hessian's diagonal, on all levels and axes
REFERENCE = {"alignment.policy": "reference"}
ONE_POSE = {
    "hypotheses.max_initial_poses": 1,
    "hypotheses.second_attempt_from": 0,
    "hypotheses.max_alternatives": 0,
}


@dataclass(frozen=True, slots=True)
class Ablation:
    """Settings that remove a part, or a function that removes it from a localizer."""

    settings: Mapping[str, object]
    change: Callable[[Localizer], None] | None = None
    averaged: bool = False  # on the map with averaged observations
    two_scales: bool = False  # on the map of smaller images first
    iterations: tuple[int, int, int] | None = None  # per level; the product does not allow 0


def without_confidence(localizer: Localizer) -> None:
    """Set all confidences of map and query to one."""
    tiles = localizer.map.tiles
    for number in range(len(tiles)):
        for confidences in tiles.tile(number).confidences:
            confidences.fill_(1.0)
    extract = localizer.features.extract

    def certain(image):  # type: ignore[no-untyped-def]
        pyramid: FeaturePyramid = extract(image)
        for level in pyramid.levels:
            level.rows[:, -1] = 1.0
        return pyramid

    localizer.features.extract = certain  # type: ignore[method-assign]


def with_fixed_damping(localizer: Localizer) -> None:
    """Use the same damping on all levels and axes."""
    localizer.features.damping = torch.full_like(localizer.features.damping, FIXED_DAMPING)


@dataclass(frozen=True, slots=True)
class ShapedCost:
    """Barron's general cost, scaled like the product's: 1 is the cost of an unrelated feature."""

    barron: Barron

    def cost(self, x: Tensor) -> Tensor:
        """Return the cost of squared residuals x."""
        return self.barron.cost(x) / self.barron.cost(x.new_tensor(2.0))

    def weight(self, x: Tensor) -> Tensor:
        """Return the derivative by x, up to the constant factor: 1 for small residuals."""
        return self.barron.weight(x)


@dataclass(frozen=True)
class ShapedAligner(Aligner):
    """An aligner with a different shape of the robust cost, at the product's scale."""

    alpha: float = 0.0

    @property
    def policy(self) -> Policy:
        """The configured rules with that cost; a shape of 0 changes nothing."""
        c = (self.config.robust_scale / 2) ** 0.5
        cost = ShapedCost(Barron(self.alpha, c))
        return replace(Policy.of(self.config), robust=cost)  # type: ignore[arg-type]


def _shape(alpha: float) -> Ablation:
    def with_shape(localizer: Localizer) -> None:
        def aligner(config: Config) -> Aligner:
            damping = localizer.features.damping
            return ShapedAligner(damping, config.alignment, config.hypotheses, alpha=alpha)

        localizer.aligner = aligner  # type: ignore[method-assign]

    return Ablation({}, with_shape)


def _iterations(coarse: int, middle: int, fine: int) -> Ablation:
    return Ablation({}, iterations=(coarse, middle, fine))


def _kernel(scale: float) -> Ablation:
    return Ablation({"alignment.robust_scale": scale})


ABLATIONS: dict[str, Ablation] = {
    "whole": Ablation({}),
    "no confidence": Ablation({}, without_confidence),
    "fixed damping": Ablation({}, with_fixed_damping),
    "observations averaged": Ablation({}, averaged=True),
    "two observations": Ablation({"view.observations": 2}),
    "all observations of 10 keyframes": Ablation({"view.observations": 10, "view.keyframes": 10}),
    "no coarse level": _iterations(0, 20, 20),
    "no middle level": _iterations(20, 0, 20),
    "no fine level": _iterations(20, 20, 0),
    "coarse level only": _iterations(60, 0, 0),
    "5 iterations per level": _iterations(5, 5, 5),
    "10 iterations per level": _iterations(10, 10, 10),
    "100 iterations per level": _iterations(100, 100, 100),
    "no robust kernel": _kernel(100.0),
    "kernel of scale 0.02": _kernel(0.02),
    "kernel of scale 0.5": _kernel(0.5),
    "squared cost": _shape(2.0),
    "kernel of shape 1 (Charbonnier)": _shape(1.0),
    "kernel of shape -2 (Geman-McClure)": _shape(-2.0),
    "two scales": Ablation({}, two_scales=True),
    "policy of the reference": Ablation(REFERENCE),
    "policy of the reference, two scales": Ablation(REFERENCE, two_scales=True),
}


def ablations(
    map_folder: MapOption,
    images: cli.ImagesOption,
    meta: cli.MetaOption,
    output: Annotated[
        Path, typer.Option(help="JSON file of all errors; measured cases are not repeated")
    ],
    averaged_map: Annotated[
        Path | None, typer.Option(help="map built with --features averaged")
    ] = None,
    smaller_map: Annotated[
        Path | None, typer.Option(help="map of smaller images, for two scales")
    ] = None,
    offset: Annotated[str, typer.Option(help="METRES,DEGREES of the priors")] = "2,3",
    exclude_every: cli.ExcludeOption = 0,
    every: cli.EveryOption = 1,
    per_frame: cli.PerFrameOption = 1,
    degrade: Annotated[str, typer.Option(help="clean, night, blur, ...")] = "clean",
    axes: cli.AxesOption = "keep",
    case: Annotated[list[str] | None, typer.Option(help="run only these; repeatable")] = None,
    settings: SetOption = None,
) -> None:
    """Localize the same frames with one part removed at a time, from one initial pose.

    Runs on several maps with the same output are pooled.

    Example: python -m research ablations --map town --images drive/images --meta drive/meta.json
    --output ablations.json
    """
    drive = read_posed_images(meta, images, axes)
    shift = cli.parse_offset(offset, planar=True)
    assert shift is not None
    index = experiment.drive_index(drive, exclude_every, every)
    series = experiment.Series(drive, index, shift, per_frame, degrade)
    record = experiment.Record(output)
    for name in case or ABLATIONS:
        folders = _folders(ABLATIONS[name], map_folder, averaged_map, smaller_map)
        if folders and not record.has(name, map_folder):
            opened = [_localizer(ABLATIONS[name], folder, settings or []) for folder in folders]
            localizer = opened[0] if len(opened) == 1 else PyramidLocalizer(tuple(opened))
            record.add(name, map_folder, experiment.errors(series.shoot(localizer, name)))
    title = f"Priors off by {offset}, {degrade}"
    Console().print(experiment.table(title, experiment.rows(record.pooled())))


def _folders(
    ablation: Ablation, map_folder: Path, averaged_map: Path | None, smaller_map: Path | None
) -> list[Path]:
    """Return the maps of an ablation in order of use; [] if one was not given."""
    last = averaged_map if ablation.averaged else map_folder
    needed = [smaller_map, last] if ablation.two_scales else [last]
    given = [folder for folder in needed if folder is not None]
    return given if len(given) == len(needed) else []


def _localizer(ablation: Ablation, folder: Path, settings: list[str]) -> Localizer:
    given = [f"{name}={value}" for name, value in {**ONE_POSE, **ablation.settings}.items()]
    config = SettingsOptions(given=[*given, *settings]).resolve(folder)
    if ablation.iterations is not None:
        alignment = config.alignment.model_copy(update={"iterations": ablation.iterations})
        config = config.model_copy(update={"alignment": alignment})
    localizer = Localizer(config)
    if ablation.change is not None:
        ablation.change(localizer)
    _extract_once(localizer)
    return localizer


def _extract_once(localizer: Localizer) -> None:
    """Keep the features of the last image: each frame is localized several times in a row."""
    extract, last = localizer.features.extract, list[tuple[object, FeaturePyramid]]()

    def kept(image):  # type: ignore[no-untyped-def]
        if not last or last[0][0] is not image:
            last[:] = [(image, extract(image))]
        return last[0][1]

    localizer.features.extract = kept  # type: ignore[method-assign]
