"""What a benchmark is to the program: scenes with queries, and how their poses are judged.

A loader reads the official files as they were downloaded and gives `Scene`s. Everything after it,
maps, localization, scores and tables, is the same for all benchmarks.
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

Poses = Mapping[str, Matrix]  # T_cam_world (4, 4) by name of the query


@dataclass(frozen=True, slots=True)
class RigImage:
    """What another camera of a rig saw at the time of a query."""

    name: str  # of the file below Scene.query_images
    camera_name: str
    camera: Camera
    T_query_cam: Matrix  # (4, 4) from this camera into that of the query


@dataclass(frozen=True, slots=True)
class BenchmarkQuery:
    """One image to localize."""

    name: str  # of the file below Scene.query_images
    camera: Camera
    group: str  # whose score it counts in: a scene, "day", "urban"
    camera_name: str = ""
    others: tuple[RigImage, ...] = ()


@dataclass(frozen=True, slots=True)
class PosedReference:
    """A reference image of a benchmark that comes with poses but without points."""

    name: str  # of the file below Scene.reference_images
    camera: Camera
    T_cam_world: Matrix


# Images with points, or images from which points are to be triangulated. Read when a map is built.
References = ColmapModel | tuple[PosedReference, ...]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Files that say which references look like a query; without any the map itself is asked."""

    pairs: Path | None = None  # lines `query reference`
    descriptors: tuple[Path, ...] = ()  # HDF5 with global descriptors
    nearest: Mapping[str, str] = field(default_factory=dict)  # a reference by query, given
    # By query, the references whose descriptors it is compared with; one not in it: with all.
    among: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scene:
    """Queries that are localized on one map."""

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
    """Where the files of a benchmark are. `{scene}` in a path stands for the scene's name."""

    root: Path
    hloc: Path | None = None  # outputs of hloc: lists, descriptors, models
    model: str = ""  # COLMAP model of the references instead of the official one
    pairs: str = ""
    descriptors: tuple[str, ...] = ()
    ground_truth: Path | None = None  # folder of pseudo ground truth (7Scenes)
    depth: Path | None = None  # folder of rendered depth (7Scenes)
    rig: bool = False  # also the images of other cameras at the time of a query (RobotCar)


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """What somebody reported, as it was printed, by group."""

    method: str
    source: str
    cells: Mapping[str, str]


class Dataset(Protocol):
    """One benchmark."""

    title: str
    scenes: tuple[str, ...]
    limits: tuple[Limit, ...]
    with_medians: bool  # in tables, instead of recalls
    settings: Mapping[str, Any]  # of the localizer, where its defaults do not fit
    published: tuple[PublishedRow, ...]

    def is_present(self, scene: str) -> bool:
        """Whether a scene was downloaded, as far as a look at its folder tells."""

    def load(self, scene: str) -> Scene:
        """Read everything but the references; raises DataError for what is missing or wrong."""

    def errors(self, poses: Poses, truth: Poses) -> PoseErrors:
        """Errors of the queries with truth, in the order of these."""

    def write_submission(self, folder: Path, poses: Mapping[str, Poses]) -> list[Path]:
        """Write what the benchmark's server takes, of poses by scene; [] where it has none."""


class Benchmark:
    """What most benchmarks have in common; loaders derive from it."""

    home: str  # where it is downloaded
    settings: Mapping[str, Any] = {}

    def __init__(self, files: DatasetFiles):
        """Raises DataError where the root is no folder."""
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
        """The first of several places below the root that exists.

        Raises DataError that names the first one, what it is, and where the benchmark lives.
        """
        for place in relative:
            path = self.files.root / place
            found = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
            if any(one.exists() for one in found):
                return path
        raise DataError(f"{self.files.root / relative[0]} is missing: {what}; {self.home}")

    def retrieval(self, scene: str, *in_hloc: str) -> Retrieval:
        """What was given for a scene, or else the first of hloc's files that is there."""
        files = self.files
        pairs = _given(files.pairs, scene, "--pairs") if files.pairs else None
        descriptors = tuple(_given(path, scene, "--descriptors") for path in files.descriptors)
        if pairs is None and not descriptors:
            folders = [files.root] if files.hloc is None else [files.hloc, files.root]
            found = (p for folder in folders for name in in_hloc for p in folder.glob(name))
            pairs = next(found, None)
        return Retrieval(pairs, descriptors)

    def model_folder(self, scene: str, official: Callable[[], Path]) -> Path:
        """The COLMAP model that was given for a scene, or the official one."""
        return _given(self.files.model, scene, "--model") if self.files.model else official()


def _given(template: str, scene: str, option: str) -> Path:
    path = Path(template.replace("{scene}", scene))
    if not path.exists():
        raise DataError(f"{option} {path}: no such file or folder")
    return path


def check_images(folder: Path, names: Sequence[str], home: str) -> None:
    """Raise DataError unless all images are there."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder / missing[0]} is missing, as are {len(missing) - 1} other images of "
            f"{len(names)}; {home}"
        )
