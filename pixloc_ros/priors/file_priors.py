"""Global priors from files of other systems: ranked keyframes, descriptors, and poses.

Poses are those of the camera, in the world frame of the model that the map was built from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.config import PriorsConfig, RetrievalConfig
from pixloc_ros.errors import DataError
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.trajectory import read_poses
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import as_matrix
from pixloc_ros.priors.global_prior import ImageDescriptors, KeyframePairs
from pixloc_ros.priors.keyframe_lookup import KeyframeLookup
from pixloc_ros.types import Frame, Matrix, PosePrior

SOURCE = "file"
ACE_COLUMNS = "name qw qx qy qz tx ty tz rotation_error translation_error inliers"
ACE_ZERO_COLUMNS = "name qw qx qy qz tx ty tz focal_length confidence"
PLANAR_COLUMNS = "name x y yaw_deg sigma_x sigma_y sigma_yaw_deg"
PLANAR_COVARIANCE = "name x y yaw_deg xx xy xyaw yy yyaw yawyaw"
MAX_TILT_DEG = 45.0  # mean tilt of the mapping cameras, if the map's z axis is up


@dataclass(frozen=True, slots=True)
class CameraPose:
    """A camera's pose in the map (4, 4), and its covariance (6, 6) in map axes."""

    T_map_cam: Matrix
    covariance: Matrix


@dataclass(frozen=True, slots=True)
class NamedPoses:
    """Proposes the pose that another system found for the frame of that name."""

    poses: Mapping[str, CameraPose]

    def propose(self, frame: Frame, features: FeaturePyramid | None = None) -> list[PosePrior]:
        """Propose the pose of the frame's name; none if there is none."""
        found = self.poses.get(frame.name)
        if found is None:
            return []
        T_map_base = found.T_map_cam @ se3.inverse(frame.T_base_cam)
        return [PosePrior(T_map_base, found.covariance, SOURCE, frame.stamp_ns)]


def read_pose_priors(
    map_: Map, file: Path, names: Sequence[str], sigma: tuple[float, float]
) -> NamedPoses:
    """Read lines `name qw qx qy qz tx ty tz`, cam_from_world.

    sigma: of the poses in metres and degrees, per axis. Raises DataError for an unusable file, or
    if it has no pose for any of the names.
    """
    T_cam_world = read_poses(file)
    hloc.check_same_names(file, T_cam_world, names, "prior")
    return poses_in_map(map_, T_cam_world, sigma)


def read_ace_priors(
    map_: Map, file: Path, names: Sequence[str], sigma: tuple[float, float]
) -> NamedPoses:
    """Read `poses_*.txt` of ACE or ACE Zero: cam_from_world, then the system's own confidence.

    ACE omits folders from names. Raises DataError as read_pose_priors does, and if two queries
    differ only in their folders.
    """
    T_cam_file: dict[str, Matrix] = {}
    widths = {len(columns.split()) for columns in (ACE_COLUMNS, ACE_ZERO_COLUMNS)}
    for where, line in hloc.read_lines(file, "poses"):
        words = line.split()
        if len(words) not in widths:
            raise DataError(
                f"{where}: expected `{ACE_COLUMNS}` or `{ACE_ZERO_COLUMNS}`, got {len(words)} words"
            )
        numbers = _numbers(where, words[1:8])
        with refusing(DataError, where, "remove the line"):  # such as a zero quaternion
            T_cam_file[words[0]] = se3.from_qvec_wxyz(numbers[:4], numbers[4:])
    T_cam_world = _by_query_name(file, T_cam_file, names)
    return poses_in_map(map_, T_cam_world, sigma)


def read_planar_priors(
    map_: Map, file: Path, names: Sequence[str], config: PriorsConfig
) -> NamedPoses:
    """Read planar poses, as from map matching (OrienterNet): x, y, yaw with uncertainty.

    Lines are PLANAR_COLUMNS, or PLANAR_COVARIANCE with the upper triangle of a covariance in metres
    and degrees. Yaw is that of the optical axis, counter-clockwise from the map's x axis; the map's
    z axis must be up. Height and tilt are taken from the nearest keyframe, with the sigmas that
    `config` sets for a GNSS fix. Raises DataError for an unusable file or map.
    """
    _check_z_up(map_)
    lookup = KeyframeLookup(map_.keyframe_T_map_cam, se3.base_from_optical(), config)
    poses: dict[str, CameraPose] = {}
    for where, line in hloc.read_lines(file, "poses"):
        name, *words = line.split()
        numbers = _numbers(where, words)
        known = _planar_covariance(where, numbers[3:])
        T_map_flat = se3.from_quat_xyzw(_yaw_quat_xyzw(numbers[2]), [*numbers[:2], 0.0])
        T_map_forward, covariance = lookup.complete(T_map_flat, known)
        covariance[np.ix_(PLANE, PLANE)] = known[np.ix_(PLANE, PLANE)]
        poses[name] = CameraPose(T_map_forward @ se3.base_from_optical(), covariance)
    hloc.check_same_names(file, poses, names, "prior")
    return NamedPoses(poses)


def read_pairs(
    map_: Map, file: Path, names: Sequence[str], config: RetrievalConfig
) -> KeyframePairs:
    """Read lines `query keyframe`, the best keyframe first.

    Raises DataError for a wrong line, or if no line pairs a query with a keyframe of the map.
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
    return KeyframePairs(map_, config, pairs)


def read_descriptors(
    map_: Map,
    files: Sequence[Path],
    names: Sequence[str],
    config: RetrievalConfig,
    among: Mapping[str, frozenset[str]] | None = None,
) -> ImageDescriptors:
    """Read global descriptors of keyframes and queries from HDF5 files.

    among: names of the keyframes that may be proposed for a query; all, for a query that is missing
    in it. Raises DataError for unreadable files and for names without a descriptor.
    """
    of_keyframes = hloc.read_descriptors(files, map_.keyframe_names)
    of_queries = dict(zip(names, hloc.read_descriptors(files, names), strict=True))
    indices = {
        chosen: np.array([i for i, name in enumerate(map_.keyframe_names) if name in chosen], int)
        for chosen in set((among or {}).values())
    }
    keyframes_of = {query: indices[chosen] for query, chosen in (among or {}).items()}
    return ImageDescriptors(map_, config, of_keyframes, of_queries, keyframes_of)


def map_from_world(map_: Map) -> Matrix:
    """Return T_map_world (4, 4); world is the frame of the model that the map was built from."""
    T_map_world = as_matrix(map_.metadata.T_map_world)
    assert T_map_world is not None
    return T_map_world


MAX_NUMBER = 1e12  # metres or degrees; its square does not overflow
PLANE = [0, 1, 5]  # indices of x, y and yaw in a pose


def poses_in_map(
    map_: Map, T_cam_world: Mapping[str, Matrix], sigma: tuple[float, float]
) -> NamedPoses:
    """Make priors of poses by name. sigma: in metres and degrees, per axis."""
    T_map_world, covariance = map_from_world(map_), diagonal(*sigma)
    return NamedPoses(
        {
            name: CameraPose(T_map_world @ se3.inverse(T), covariance)
            for name, T in T_cam_world.items()
        }
    )


def _by_query_name(
    file: Path, known: Mapping[str, Matrix], names: Sequence[str]
) -> dict[str, Matrix]:
    """Return poses by full query name; the file's names may lack the folders."""
    if any(name in known for name in names):
        return dict(known)
    query_of: dict[str, str] = {}
    for name in names:
        if query_of.setdefault(Path(name).name, name) != name:
            raise DataError(
                f"{file} has no folders in names, and two queries are {Path(name).name}"
            )
    hloc.check_same_names(file, known, list(query_of), "prior")
    return {query_of[short]: T for short, T in known.items() if short in query_of}


def _numbers(where: str, words: Sequence[str]) -> Matrix:
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    if not (np.abs(numbers) < MAX_NUMBER).all():
        raise DataError(f"{where}: a pose that is not finite; remove the line")
    return numbers


def _yaw_quat_xyzw(yaw_deg: float) -> list[float]:
    half = np.deg2rad(yaw_deg) / 2
    return [0.0, 0.0, float(np.sin(half)), float(np.cos(half))]


def _planar_covariance(where: str, numbers: Matrix) -> Matrix:
    """Return a (6, 6) covariance in m and rad, from the columns after x, y and yaw.

    Unknown entries are zero.
    """
    plane = np.zeros((3, 3))
    if len(numbers) == 3:
        plane = np.diag(numbers**2)
    elif len(numbers) == 6:
        plane[np.triu_indices(3)] = numbers
        plane = plane + np.triu(plane, 1).T
    else:
        raise DataError(f"{where}: expected `{PLANAR_COLUMNS}` or `{PLANAR_COVARIANCE}`")
    if np.linalg.eigvalsh(plane)[0] <= 0:
        raise DataError(f"{where}: the uncertainty of x, y and yaw is no covariance")
    unit = np.array([1.0, 1.0, np.deg2rad(1.0)])
    covariance = np.zeros((6, 6))
    covariance[np.ix_(PLANE, PLANE)] = plane * np.outer(unit, unit)
    return covariance


def _check_z_up(map_: Map) -> None:
    up = -map_.keyframe_T_map_cam[:, :3, 1].mean(0)  # y of an optical frame points down
    if up[2] < np.cos(np.deg2rad(MAX_TILT_DEG)) * np.linalg.norm(up):
        raise DataError(
            "poses in the plane need a map whose z is up: build it with --axes optical_to_ros, or "
            "from a model that is level"
        )
