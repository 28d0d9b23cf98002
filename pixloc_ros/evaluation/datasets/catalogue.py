"""The benchmarks by their names on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets.aachen import Aachen, AachenV11
from pixloc_ros.evaluation.datasets.cambridge import Cambridge
from pixloc_ros.evaluation.datasets.cmu import ExtendedCmu
from pixloc_ros.evaluation.datasets.four_seasons import FourSeasons
from pixloc_ros.evaluation.datasets.protocol import Benchmark, Dataset, DatasetFiles
from pixloc_ros.evaluation.datasets.robotcar import RobotCar
from pixloc_ros.evaluation.datasets.seven_scenes import SevenScenes

DATASETS: dict[str, type[Benchmark]] = {
    "cambridge": Cambridge,
    "7scenes": SevenScenes,
    "aachen": Aachen,
    "aachen-v1.1": AachenV11,
    "robotcar": RobotCar,
    "cmu": ExtendedCmu,
    "4seasons": FourSeasons,
}


def open_dataset(name: str, files: DatasetFiles) -> Dataset:
    """Open a benchmark by name. Raises DataError for an unknown name or a missing root folder."""
    if name not in DATASETS:
        raise DataError(f"dataset '{name}' is none of {', '.join(DATASETS)}")
    return DATASETS[name](files)  # type: ignore[return-value]


def chosen_scenes(dataset: Dataset, wanted: Sequence[str]) -> list[str]:
    """Return the requested scenes, or else all that were downloaded.

    Raises DataError for an unknown scene, and if there is none at all.
    """
    if unknown := [name for name in wanted if name not in dataset.scenes]:
        known = ", ".join(dataset.scenes)
        raise DataError(f"--scene {unknown[0]}: {dataset.title} has {known}")
    scenes = list(wanted) or [name for name in dataset.scenes if dataset.is_present(name)]
    if not scenes:
        dataset.load(dataset.scenes[0])  # raises the error that says what is missing
    return scenes
