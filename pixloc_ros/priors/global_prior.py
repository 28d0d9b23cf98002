"""Propose poses for a frame when nothing measured along the drive tells where it is.

Whatever does this is a `GlobalPrior`: the map's own retrieval here, other systems' files in
`file_priors` and `feature_matches`, and what users add: docs/guide/priors.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import RetrievalConfig
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.maps import retrieval
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Frame, PosePrior


class GlobalPrior(Protocol):
    """Proposes poses for a frame, each with a realistic covariance."""

    def propose(self, frame: Frame, features: FeaturePyramid | None = None) -> list[PosePrior]:
        """Propose poses, the most likely first; none if nothing is known about the frame.

        features: of the frame's image, if they have been extracted.
        """


@dataclass(frozen=True, slots=True)
class MapRetrieval:
    """Proposes the places of keyframes that resemble the frame."""

    map: Map
    config: RetrievalConfig

    def propose(self, frame: Frame, features: FeaturePyramid | None = None) -> list[PosePrior]:
        """Propose places by the descriptor of the features; none without features.

        Raises MapError if the map has no descriptors.
        """
        if features is None:
            return []
        descriptors, count = self.map.keyframe_descriptors, self.config.candidates
        ranking = retrieval.most_alike(descriptors, retrieval.describe(features), count)
        return retrieval.places(self.map, ranking, frame.T_base_cam, frame.stamp_ns, self.config)


@dataclass(frozen=True, slots=True)
class KeyframePairs:
    """Proposes the places of keyframes that another system ranked, by the frame's name."""

    map: Map
    config: RetrievalConfig
    keyframes: Mapping[str, Sequence[int]]  # indices in the map by frame name, the best first

    def propose(self, frame: Frame, features: FeaturePyramid | None = None) -> list[PosePrior]:
        """Propose places of the keyframes ranked for the frame's name; none if it is unknown."""
        index = np.array(self.keyframes.get(frame.name, ()), np.intp)[: self.config.candidates]
        likeness = np.linspace(1.0, 0.0, len(index), endpoint=False, dtype=np.float32)
        if not len(index):
            return []
        ranking = (index, likeness)
        return retrieval.places(self.map, ranking, frame.T_base_cam, frame.stamp_ns, self.config)


@dataclass(frozen=True, slots=True)
class ImageDescriptors:
    """Proposes places by another system's descriptors, by the frame's name."""

    map: Map
    config: RetrievalConfig
    of_keyframes: NDArray[np.float32]  # (M, D), unit norm
    of_frames: Mapping[str, NDArray[np.float32]]  # (D,), unit norm, by frame name
    # Indices (N,) of the keyframes that may be proposed; any, for a frame that is missing here.
    keyframes_of: Mapping[str, NDArray[np.intp]] = field(default_factory=dict)

    def propose(self, frame: Frame, features: FeaturePyramid | None = None) -> list[PosePrior]:
        """Propose places by the descriptor of the frame's name; none if it is unknown."""
        if frame.name not in self.of_frames:
            return []
        descriptor, count = self.of_frames[frame.name], self.config.candidates
        among = self.keyframes_of.get(frame.name)
        if among is None:
            ranking = retrieval.most_alike(self.of_keyframes, descriptor, count)
        elif len(among):
            best, likeness = retrieval.most_alike(self.of_keyframes[among], descriptor, count)
            ranking = (among[best], likeness)
        else:
            return []
        return retrieval.places(self.map, ranking, frame.T_base_cam, frame.stamp_ns, self.config)
