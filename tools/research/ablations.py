"""`research ablations`: what each part of the alignment is worth, in the manner of Table 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from pixloc_ros.cli import shots as cli
from pixloc_ros.cli.replay import MapOption, SetOption, resolve_config
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from research import experiment

FIXED_DAMPING = 1e-2  # relative to the Hessian's diagonal, on all levels and axes
ONE_POSE = {"hypotheses.max_initial_poses": 1, "hypotheses.max_alternatives": 0}


@dataclass(frozen=True, slots=True)
class Ablation:
    """Settings that take something away, or what is done to a localizer for that."""

    settings: Mapping[str, object]
    change: Callable[[Localizer], None] | None = None
    averaged: bool = False  # on the map whose observations are averaged
    iterations: tuple[int, int, int] | None = None  # of each level; 0 is no setting of the product


def without_confidence(localizer: Localizer) -> None:
    """Trust every pixel of map and query alike."""
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
    """Damp all levels and axes alike."""
    localizer.features.damping = torch.full_like(localizer.features.damping, FIXED_DAMPING)


def _iterations(coarse: int, middle: int, fine: int) -> Ablation:
    return Ablation({}, iterations=(coarse, middle, fine))


def _kernel(scale: float) -> Ablation:
    return Ablation({"alignment.robust_scale": scale})


ABLATIONS: dict[str, Ablation] = {
    "whole": Ablation({}),
    "no confidence": Ablation({}, without_confidence),
    "fixed damping": Ablation({}, with_fixed_damping),
    "observations averaged": Ablation({}, averaged=True),
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
    "policy of the reference": Ablation({"alignment.policy": "reference"}),
}


def ablations(
    map_folder: MapOption,
    images: cli.ImagesOption,
    meta: cli.MetaOption,
    output: Annotated[
        Path, typer.Option(help="JSON file of all errors; what it has is not run again")
    ],
    averaged_map: Annotated[
        Path | None, typer.Option(help="the map built with --features averaged")
    ] = None,
    offset: Annotated[str, typer.Option(help="METRES,DEGREES of the priors")] = "2,3",
    exclude_every: cli.ExcludeOption = 0,
    every: cli.EveryOption = 1,
    per_frame: cli.PerFrameOption = 1,
    degrade: Annotated[str, typer.Option(help="clean, night, blur, ...")] = "clean",
    axes: cli.AxesOption = "keep",
    case: Annotated[list[str] | None, typer.Option(help="only these; repeatable")] = None,
    settings: SetOption = None,
) -> None:
    """Localize the same frames with one part after the other taken away, from one initial pose.

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
        folder = averaged_map if ABLATIONS[name].averaged else map_folder
        if folder is not None and not record.has(name, map_folder):
            localizer = _localizer(ABLATIONS[name], folder, settings or [])
            record.add(name, map_folder, experiment.errors(series.shoot(localizer, name)))
    title = f"Priors off by {offset}, {degrade}"
    Console().print(experiment.table(title, experiment.rows(record.pooled())))


def _localizer(ablation: Ablation, folder: Path, settings: list[str]) -> Localizer:
    given = [f"{name}={value}" for name, value in {**ONE_POSE, **ablation.settings}.items()]
    config = resolve_config(None, [*given, *settings], folder, None)
    if ablation.iterations is not None:
        alignment = config.alignment.model_copy(update={"iterations": ablation.iterations})
        config = config.model_copy(update={"alignment": alignment})
    localizer = Localizer(config)
    if ablation.change is not None:
        ablation.change(localizer)
    return localizer
