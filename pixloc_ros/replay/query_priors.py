"""Where the search for each image of a list begins: at poses, pairs or descriptors from files.

The files are those of hloc: `pairs.txt` and the HDF5 of its global descriptors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pixloc_ros.config import RetrievalConfig
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import read_poses
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import as_matrix
from pixloc_ros.types import PosePrior

# From the name and the stamp of an image. None or []: the localizer searches the map.
Starts = Callable[[str, int], PosePrior | Sequence[PosePrior] | None]


def search(name: str, stamp_ns: int) -> None:
    """Nothing is known: the localizer searches the map by its own descriptors."""


def from_poses(map_: Map, file: Path, names: Sequence[str], sigma: tuple[float, float]) -> Starts:
    """At poses `name qw qx qy qz tx ty tz` (cam_from_world, of the model the map was built from).

    sigma: metres and degrees by which they may be off, per axis. Raises DataError for a file that
    cannot be used, or that has no pose of any of the names.
    """
    poses, T_map_world = read_poses(file), map_from_world(map_)
    if not any(name in poses for name in names):
        raise DataError(
            f"no query has a prior: queries are named like '{names[0]}', "
            f"{file} has '{next(iter(poses))}'"
        )

    def start(name: str, stamp_ns: int) -> PosePrior | None:
        if name not in poses:
            return None
        T_map_cam = T_map_world @ se3.inverse(poses[name])
        return PosePrior(T_map_cam, diagonal(*sigma), "file", stamp_ns)

    return start


def from_pairs(map_: Map, file: Path, names: Sequence[str], config: RetrievalConfig) -> Starts:
    """At the keyframes that a file of lines `query keyframe` pairs with a query, the best first.

    Raises DataError for a wrong line, or where no pair is of a query and a keyframe of the map.
    """
    keyframe_of = {name: index for index, name in enumerate(map_.keyframe_names)}
    pairs = {
        query: [keyframe_of[name] for name in listed if name in keyframe_of]
        for query, listed in hloc.read_pairs(file).items()
    }
    if not any(pairs.get(name) for name in names):
        raise DataError(
            f"{file} pairs no query with a keyframe: queries are named like '{names[0]}', "
            f"keyframes like '{map_.keyframe_names[0]}'"
        )

    def start(name: str, stamp_ns: int) -> list[PosePrior]:
        index = np.array(pairs.get(name, []), np.intp)[: config.candidates]
        likeness = np.linspace(1.0, 0.0, len(index), endpoint=False, dtype=np.float32)
        return retrieval.places(map_, (index, likeness), np.eye(4), stamp_ns, config)

    return start


def from_descriptors(
    map_: Map, files: Sequence[Path], names: Sequence[str], config: RetrievalConfig
) -> Starts:
    """At the keyframes whose descriptors in HDF5 files are most like the query's.

    Raises DataError for files that cannot be read and for names without a descriptor.
    """
    of_map = hloc.read_descriptors(files, map_.keyframe_names)
    of_query = dict(zip(names, hloc.read_descriptors(files, names), strict=True))

    def start(name: str, stamp_ns: int) -> list[PosePrior]:
        ranking = retrieval.most_alike(of_map, of_query[name], config.candidates)
        return retrieval.places(map_, ranking, np.eye(4), stamp_ns, config)

    return start


def map_from_world(map_: Map) -> Matrix:
    """T_map_world (4, 4); world is that of the model that the map was built from."""
    T_map_world = as_matrix(map_.metadata.T_map_world)
    assert T_map_world is not None
    return T_map_world
