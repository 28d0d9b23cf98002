"""The benchmarks by the names that the command line knows."""

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
    """Raises DataError for a name that is none and for a root that is no folder."""
    if name not in DATASETS:
        raise DataError(f"dataset '{name}' is none of {', '.join(DATASETS)}")
    return DATASETS[name](files)  # type: ignore[return-value]


def chosen_scenes(dataset: Dataset, wanted: Sequence[str]) -> list[str]:
    """The scenes that were asked for, or else all that were downloaded.

    Raises DataError for one that is none, and where there is none.
    """
    if unknown := [name for name in wanted if name not in dataset.scenes]:
        known = ", ".join(dataset.scenes)
        raise DataError(f"--scene {unknown[0]}: {dataset.title} has {known}")
    scenes = list(wanted) or [name for name in dataset.scenes if dataset.is_present(name)]
    if not scenes:
        dataset.load(dataset.scenes[0])  # tells what is missing
    return scenes
