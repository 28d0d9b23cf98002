"""Define a benchmark for the program: scenes with queries, and how their poses are scored.

A loader reads the official files as they were downloaded and returns `Scene`s. All that follows
(maps, localization, scores and tables) is the same for all benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets import scores
from pixloc_ros.evaluation.datasets.scores import Limit, PoseErrors
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.colmap import ColmapModel

Poses = Mapping[str, Matrix]  # T_cam_world (4, 4) by query name


@dataclass(frozen=True, slots=True)
class RigImage:
    """The image of another camera of a rig, taken at the time of a query."""

    name: str  # of the file, relative to Scene.query_images
    camera_name: str
    camera: Camera
    T_query_cam: Matrix  # (4, 4) from this camera to that of the query


@dataclass(frozen=True, slots=True)
class BenchmarkQuery:
    """One image to localize."""

    name: str  # of the file, relative to Scene.query_images
    camera: Camera
    group: str  # in whose score it counts: a scene, "day", "urban"
    camera_name: str = ""
    others: tuple[RigImage, ...] = ()


@dataclass(frozen=True, slots=True)
class PosedReference:
    """A reference image of a benchmark that has poses but no points."""

    name: str  # of the file, relative to Scene.reference_images
    camera: Camera
    T_cam_world: Matrix


# Images with points, or images from which points are triangulated. Read when a map is built.
References = ColmapModel | tuple[PosedReference, ...]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Files that tell which references resemble a query; without any, the map is searched."""

    pairs: Path | None = None  # lines `query reference`
    descriptors: tuple[Path, ...] = ()  # HDF5 with global descriptors
    nearest: Mapping[str, str] = field(default_factory=dict)  # given reference by query
    # By query, the references to compare descriptors with; all, for a query missing here.
    among: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scene:
    """Queries that are localized on the same map."""

    name: str
    map_name: str  # scenes may share a map
    queries: tuple[BenchmarkQuery, ...]
    query_images: Path
    reference_images: Path
    references: Callable[[], References]
    truth: Poses  # of the queries whose pose is public
    retrieval: Retrieval = Retrieval()


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """Locations of a benchmark's files. `{scene}` in a path stands for the scene's name."""

    root: Path
    hloc: Path | None = None  # outputs of hloc: lists, descriptors, models
    model: str = ""  # COLMAP model of the references, replaces the official one
    pairs: str = ""
    descriptors: tuple[str, ...] = ()
    ground_truth: Path | None = None  # folder of pseudo ground truth (7Scenes)
    depth: Path | None = None  # folder of rendered depth (7Scenes)
    rig: bool = False  # also use the images of the rig's other cameras (RobotCar)


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """Published results of one method, as printed, by group."""

    method: str
    source: str
    cells: Mapping[str, str]


class Dataset(Protocol):
    """One benchmark."""

    title: str
    scenes: tuple[str, ...]
    limits: tuple[Limit, ...]
    with_medians: bool  # tables show medians instead of recalls
    settings: Mapping[str, Any]  # overrides of the localizer's defaults
    published: tuple[PublishedRow, ...]

    def is_present(self, scene: str) -> bool:
        """Return whether a scene seems to be downloaded, judging by its folder."""

    def load(self, scene: str) -> Scene:
        """Read everything but the references. Raises DataError for what is missing or wrong."""

    def errors(self, poses: Poses, truth: Poses) -> PoseErrors:
        """Return errors of the queries that have truth, in the order of `truth`."""

    def write_submission(self, folder: Path, poses: Mapping[str, Poses]) -> list[Path]:
        """Write the files for the benchmark's server, from poses by scene; [] if it has none."""


class Benchmark:
    """What most benchmarks have in common; the base class of loaders."""

    home: str  # where to download it
    settings: Mapping[str, Any] = {}

    def __init__(self, files: DatasetFiles):
        """Raise DataError if the root is not a folder."""
        self.files = files
        if not files.root.is_dir():
            raise DataError(f"--root {files.root}: no such folder; {self.home}")

    def is_present(self, scene: str) -> bool:
        return (self.files.root / scene).is_dir()

    def errors(self, poses: Poses, truth: Poses) -> PoseErrors:
        return scores.pose_errors(poses, truth)

    def write_submission(self, folder: Path, poses: Mapping[str, Poses]) -> list[Path]:
        return []

    def find(self, *relative: str, what: str) -> Path:
        """Return the first of several paths below the root that exists.

        Raises DataError that names the first path, what it is, and where to download the benchmark.
        """
        for place in relative:
            path = self.files.root / place
            found = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
            if any(one.exists() for one in found):
                return path
        raise DataError(f"{self.files.root / relative[0]} is missing: {what}; {self.home}")

    def retrieval(self, scene: str, *in_hloc: str) -> Retrieval:
        """Return the files that the user gave for a scene, or else the first that hloc has."""
        files = self.files
        pairs = _given(files.pairs, scene, "--pairs") if files.pairs else None
        descriptors = tuple(_given(path, scene, "--descriptors") for path in files.descriptors)
        if pairs is None and not descriptors:
            folders = [files.root] if files.hloc is None else [files.hloc, files.root]
            found = (p for folder in folders for name in in_hloc for p in folder.glob(name))
            pairs = next(found, None)
        return Retrieval(pairs, descriptors)

    def model_folder(self, scene: str, official: Callable[[], Path]) -> Path:
        """Return the COLMAP model that the user gave for a scene, or the official one."""
        return _given(self.files.model, scene, "--model") if self.files.model else official()


def _given(template: str, scene: str, option: str) -> Path:
    path = Path(template.replace("{scene}", scene))
    if not path.exists():
        raise DataError(f"{option} {path}: no such file or folder")
    return path


def check_images(folder: Path, names: Sequence[str], home: str) -> None:
    """Raise DataError unless all images exist."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder / missing[0]} is missing, as are {len(missing) - 1} other images of "
            f"{len(names)}; {home}"
        )
