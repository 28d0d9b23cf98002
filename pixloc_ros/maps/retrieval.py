"""Finding a frame on the map with no prior: by what its image looks like as a whole.

The descriptor comes from the same network pass as the features: generalised means (GeM, Radenovic
et al., PAMI 2019) of the positive and negative parts of the coarse level, in upright strips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.maps.store import Map
from pixloc_ros.results import PosePrior

POWER = 3.0  # of the generalised mean: 1 is the mean, infinity the maximum
STRIPS = 4  # side by side: what is to the left is not to the right
LEAST = 1e-6
SOURCE = "retrieval"


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """How keyframes that look alike become priors. Sigmas are those of a keyframe 10 m apart."""

    candidates: int = 10  # keyframes that look most alike
    priors: int = 3  # distinct places among them
    same_place_m: float = 15.0
    sigma_m: float = 4.0
    sigma_deg: float = 4.0


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
    map_: Map, descriptor: NDArray[np.float32], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Indices (count,) of the keyframes that look most like a descriptor (D,), and how much.

    An exact search: 10,000 keyframes take milliseconds. Raises MapError for maps without
    descriptors.
    """
    if map_.keyframe_descriptors is None:
        raise MapError("the map has no descriptors of keyframes; build it again to have them")
    similarity = map_.keyframe_descriptors.astype(np.float32) @ descriptor
    order = np.argsort(-similarity, kind="stable")[:count]
    return order, similarity[order]


def retrieve_priors(
    map_: Map,
    pyramid: FeaturePyramid,
    T_base_cam: NDArray[np.float64],
    stamp_ns: int,
    options: RetrievalOptions | None = None,
) -> list[PosePrior]:
    """Priors at the distinct places that look most like the image, the most likely one first.

    Each has the rotation of its best keyframe, and the mean place of those near it, weighted by
    how alike they look (PixLoc, section 4). Places are ordered by all that votes for them.
    """
    options = options or RetrievalOptions()
    index, similarity = most_alike(map_, describe(pyramid), options.candidates)
    T_map_cam = map_.keyframe_T_map_cam[index]
    weights = np.clip(similarity - similarity.min(initial=1.0), 1e-3, None) ** 2
    groups = _places(T_map_cam[:, :3, 3], options.same_place_m)
    votes = [weights[group].sum() for group in groups]
    best_first = sorted(range(len(groups)), key=lambda g: -votes[g])[: options.priors]
    covariance = diagonal(options.sigma_m, options.sigma_deg)
    return [
        PosePrior(_mean_pose(T_map_cam[group], weights[group]) @ se3.inverse(T_base_cam),
                  covariance, SOURCE, stamp_ns)
        for group in (groups[g] for g in best_first)
    ]  # fmt: skip


def _places(positions: NDArray[np.float64], same_place_m: float) -> list[NDArray[np.intp]]:
    """Groups of positions (N, 3) around the first that is in no other group, and so on."""
    left = np.arange(len(positions))
    groups = []
    while len(left):
        distance_m = np.linalg.norm(positions[left] - positions[left[0]], axis=-1)
        near = distance_m <= same_place_m
        groups.append(left[near])
        left = left[~near]
    return groups


def _mean_pose(T_map_cam: NDArray[np.float64], weights: Sequence[float]) -> NDArray[np.float64]:
    """The first rotation at the weighted mean of the positions."""
    return se3.make(T_map_cam[0, :3, :3], np.average(T_map_cam[:, :3, 3], axis=0, weights=weights))
