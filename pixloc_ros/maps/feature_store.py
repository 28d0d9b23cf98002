"""The features of a map under construction: of each observation, or averaged per point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pixloc_ros.maps.schema import Storage

Features = Sequence[NDArray[np.float32]]  # (N, C) of unit norm, per level, coarse to fine
Confidences = Sequence[NDArray[np.float32]]  # (N,) per level, 0 where not to be used
Arrays = dict[str, NDArray]


class FeatureStore(ABC):
    """Collects what the keyframes saw of points 0..P-1, one `add` per keyframe, in order."""

    def __init__(self, n_points: int) -> None:
        self._points_by_keyframe: list[NDArray[np.intp]] = []
        self._confidence_sum = np.zeros(n_points)
        self.counts = np.zeros(n_points, np.int64)  # keyframes that saw each point

    def add(self, points: NDArray[np.intp], features: Features, confidences: Confidences) -> None:
        """points: (N,) distinct indices of the points that this keyframe sees."""
        self._points_by_keyframe.append(points)
        self.counts[points] += 1
        self._confidence_sum[points] += np.mean(confidences, axis=0)
        self._store(points, features, confidences)

    @abstractmethod
    def _store(
        self, points: NDArray[np.intp], features: Features, confidences: Confidences
    ) -> None: ...

    @abstractmethod
    def row_arrays(self) -> Arrays:
        """Features and confidences of the map."""

    @abstractmethod
    def _row_of_observations(self) -> NDArray[np.int32]: ...

    @property
    def kept(self) -> NDArray[np.intp]:
        """Indices of the points that were seen; the map's points, in this order."""
        return np.flatnonzero(self.counts)

    @property
    def mean_confidence(self) -> NDArray[np.float64]:
        """Over observations and levels, of the kept points."""
        return self._confidence_sum[self.kept] / self.counts[self.kept]

    def observation_arrays(self) -> Arrays:
        """observation_offsets, observation_point and observation_row of the map."""
        lengths = [len(points) for points in self._points_by_keyframe]
        return {
            "observation_offsets": np.concatenate([[0], np.cumsum(lengths)]),
            "observation_point": self._observed(),
            "observation_row": self._row_of_observations(),
        }

    def _observed(self) -> NDArray[np.int32]:
        new_index = np.cumsum(self.counts > 0) - 1
        return new_index[np.concatenate(self._points_by_keyframe)].astype(np.int32)


class ObservationStore(FeatureStore):
    """Keeps the features of each observation, keyframe after keyframe."""

    def __init__(self, n_points: int, dims: Sequence[int]) -> None:
        super().__init__(n_points)
        self._features: list[list[NDArray[np.float16]]] = [[] for _ in dims]
        self._confidences: list[list[NDArray[np.float16]]] = [[] for _ in dims]

    def _store(
        self, points: NDArray[np.intp], features: Features, confidences: Confidences
    ) -> None:
        for level, (feature, confidence) in enumerate(zip(features, confidences, strict=True)):
            self._features[level].append(feature.astype(np.float16))
            self._confidences[level].append(confidence.astype(np.float16))

    def row_arrays(self) -> Arrays:
        return {
            **_by_level("features", [np.concatenate(parts) for parts in self._features]),
            **_by_level("confidences", [np.concatenate(parts) for parts in self._confidences]),
        }

    def _row_of_observations(self) -> NDArray[np.int32]:
        return np.arange(self.counts.sum(), dtype=np.int32)


class AveragedStore(FeatureStore):
    """Averages the features of each point by confidence, as in the paper."""

    def __init__(self, n_points: int, dims: Sequence[int]) -> None:
        super().__init__(n_points)
        self._sums = [np.zeros((n_points, dim), np.float32) for dim in dims]
        self._weights = [np.zeros(n_points, np.float32) for _ in dims]
        self._used = [np.zeros(n_points, np.int32) for _ in dims]

    def _store(
        self, points: NDArray[np.intp], features: Features, confidences: Confidences
    ) -> None:
        for level, (feature, confidence) in enumerate(zip(features, confidences, strict=True)):
            self._sums[level][points] += confidence[:, None] * feature
            self._weights[level][points] += confidence
            self._used[level][points] += confidence > 0

    def row_arrays(self) -> Arrays:
        kept = self.kept
        means = [w / np.maximum(used, 1) for w, used in zip(self._weights, self._used, strict=True)]
        return {
            **_by_level("features", [_unit(sums[kept]) for sums in self._sums]),
            **_by_level("confidences", [mean[kept].astype(np.float16) for mean in means]),
        }

    def _row_of_observations(self) -> NDArray[np.int32]:
        return self._observed()


def create(storage: Storage, n_points: int, dims: Sequence[int]) -> FeatureStore:
    """Create an empty store for n_points points and features of these dimensions per level."""
    if storage == "averaged":
        return AveragedStore(n_points, dims)
    return ObservationStore(n_points, dims)


def covisibility(offsets: NDArray[np.int64], points: NDArray[np.int32]) -> Arrays:
    """Keyframes that share points with each keyframe, and how many."""
    sees = csr_array((np.ones(len(points), np.int32), points, offsets))
    shared = csr_array(sees @ sees.T)
    shared.setdiag(0)
    shared.eliminate_zeros()
    return covisibility_arrays(shared)


def covisibility_arrays(shared: csr_array) -> Arrays:
    """Arrays of the map from the counts (M, M) of points that two keyframes share."""
    shared.sort_indices()
    return {
        "covisible_offsets": shared.indptr.astype(np.int64),
        "covisible_keyframe": shared.indices.astype(np.int32),
        "covisible_points": shared.data.astype(np.int32),
    }


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float16)


def _by_level(name: str, arrays: Sequence[NDArray]) -> Arrays:
    return {f"{name}_{level}": array for level, array in enumerate(arrays)}
