"""Finding a frame on the map with no prior: by what its image looks like as a whole.

The descriptor comes from the same network pass as the features: generalised means (GeM, Radenovic
et al., PAMI 2019) of the positive and negative parts of the coarse level, in upright strips.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from pixloc_ros.config import RetrievalConfig
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.map import Map
from pixloc_ros.types import PosePrior

Ranking = tuple[NDArray[np.intp], NDArray[np.float32]]  # keyframes, and how alike they look

POWER = 3.0  # of the generalised mean: 1 is the mean, infinity the maximum
STRIPS = 4  # side by side: what is to the left is not to the right
LEAST = 1e-6
SOURCE = "retrieval"
BLOCK = 50_000  # descriptors
NEIGHBOURS = 2  # of a keyframe: the one before it and the one after it on a road
MAX_TURN_RAD = np.deg2rad(60.0)  # neighbours that look elsewhere are of another way


def describe(pyramid: FeaturePyramid) -> NDArray[np.float32]:
    """Descriptor (D,) of unit norm of a whole image."""
    level = pyramid.levels[0]
    maps = level.rows[:, :-1].view(level.height, level.width, -1)
    parts = torch.cat([maps.clamp(min=LEAST), (-maps).clamp(min=LEAST)], -1)
    strips = [_unit(_generalised_mean(strip)) for strip in parts.tensor_split(STRIPS, dim=1)]
    return _unit(torch.cat(strips)).cpu().numpy()


def _generalised_mean(strip: Tensor) -> Tensor:
    return (strip**POWER).mean((0, 1)) ** (1.0 / POWER)


def _unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=0)


def most_alike(
    descriptors: NDArray[np.floating] | None, descriptor: NDArray[np.float32], count: int
) -> Ranking:
    """Indices (count,) of the descriptors (M, D) most like a descriptor (D,), and how much.

    An exact search, see docs/guide/maps.md for its time. Raises MapError where there are none.
    """
    if descriptors is None:
        raise MapError("the map has no descriptors of keyframes; build it again to have them")
    blocks = np.array_split(descriptors, -(-len(descriptors) // BLOCK))  # float32 for one at a time
    similarity = np.concatenate([block.astype(np.float32) @ descriptor for block in blocks])
    order = np.argsort(-similarity, kind="stable")[:count]
    return order, similarity[order]


def most_alike_condition(
    map_: Map, descriptor: NDArray[np.float32], position: NDArray[np.float64], radius_m: float
) -> int:
    """The condition of the keyframe near a position that looks most like an image as a whole.

    Light and weather change the descriptor (D,) of a place more than some metres do. 0, that of the
    build, where the map knows of no other.
    """
    if map_.keyframe_condition is None or map_.keyframe_descriptors is None:
        return 0
    near, _ = map_.keyframes_within(position, radius_m)
    if not len(near):
        return 0
    similarity = map_.keyframe_descriptors[near].astype(np.float32) @ descriptor
    return int(map_.keyframe_condition[near[similarity.argmax()]])


def places(
    map_: Map,
    ranking: Ranking,
    T_base_cam: Matrix,
    stamp_ns: int,
    config: RetrievalConfig,
) -> list[PosePrior]:
    """Priors at the distinct places among keyframes that look alike, the most likely one first.

    Each is the mean pose of its keyframes, weighted by how alike they look (PixLoc, section 4).
    Places are ordered by the votes of all keyframes that see what their best one sees.
    """
    index, similarity = ranking
    T_map_base = map_.keyframe_T_map_cam @ se3.inverse(T_base_cam)
    weights = np.clip(similarity - similarity.min(initial=1.0), 1e-3, None) ** 2
    groups = _groups(T_map_base[index, :3, 3], config.same_place_m)
    votes = [weights[_in(group, index, map_)].sum() for group in groups]
    best_first = sorted(range(len(groups)), key=lambda g: -votes[g])[: config.places]
    return [
        _prior(T_map_base, index[group], weights[group], stamp_ns, config)
        for group in (groups[g] for g in best_first)
    ]


def _groups(positions: Matrix, same_place_m: float) -> list[NDArray[np.intp]]:
    """Groups of positions (N, 3) around the first that is in no other group, and so on."""
    left = np.arange(len(positions))
    groups = []
    while len(left):
        distance_m = np.linalg.norm(positions[left] - positions[left[0]], axis=-1)
        near = distance_m <= same_place_m
        groups.append(left[near])
        left = left[~near]
    return groups


def _in(group: NDArray[np.intp], index: NDArray[np.intp], map_: Map) -> NDArray[np.bool_]:
    """Which of the ranked keyframes (N,) are of a group, or share points with its best one."""
    best = index[group[0]]
    covisible = map_.covisible_keyframe[slice(*map_.covisible_offsets[best : best + 2])]
    return np.isin(index, np.concatenate([index[group], covisible]))


def _prior(
    T_map_base: Matrix,
    members: NDArray[np.intp],
    weights: NDArray[np.float32],
    stamp_ns: int,
    config: RetrievalConfig,
) -> PosePrior:
    """The mean of some of all keyframes (M, 4, 4), as vague as they and their neighbours differ.

    A vehicle between two keyframes is as far from either as they are apart, at most, and turned as
    far as the way turns: so two sigmas reach the neighbours.
    """
    rotation = Rotation.from_matrix(T_map_base[members, :3, :3]).mean(weights)
    position = np.average(T_map_base[members, :3, 3], axis=0, weights=weights)
    T_mean = se3.make(rotation.as_matrix(), position)
    spread = _errors(T_map_base[members], T_mean)
    neighbours = _neighbours(T_map_base, members[0], config.same_place_m)
    away = _errors(T_map_base[neighbours], T_map_base[members[0]])
    covariance = cov.diagonal(config.sigma_m, config.sigma_deg)
    covariance += (spread.T * weights) @ spread / weights.sum()
    covariance += away.T @ away / (4 * max(len(away), 1))
    return PosePrior(T_mean, covariance, SOURCE, stamp_ns)


def _errors(T_map_base: Matrix, T_mean: Matrix) -> Matrix:
    """(N, 6) in ROS order."""
    return np.array([cov.base_error(T, T_mean) for T in T_map_base]).reshape(-1, 6)


def _neighbours(T_map_base: Matrix, keyframe: np.intp, within_m: float) -> NDArray[np.intp]:
    """The keyframes nearest to one of them that look the same way."""
    T = T_map_base[keyframe]
    distance_m = np.linalg.norm(T_map_base[:, :3, 3] - T[:3, 3], axis=-1)
    traces = np.einsum("ij,mij->m", T[:3, :3], T_map_base[:, :3, :3])
    others = (distance_m <= within_m) & ((traces - 1) / 2 > np.cos(MAX_TURN_RAD))
    others[keyframe] = False
    nearest = np.argsort(np.where(others, distance_m, np.inf), kind="stable")[:NEIGHBOURS]
    return nearest[others[nearest]]
