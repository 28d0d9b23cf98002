"""Global priors from local features that another system has matched, in hloc's file formats.

LoFTR-like matchers and SuperPoint with LightGlue write the same: the keypoints of each image, and
for each pair of images which keypoints match. A COLMAP model made with these keypoints tells which
points the references' keypoints observe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.errors import DataError
from pixloc_ros.features.pyramid import FeaturePyramid
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.pnp import solve_pnp
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel
from pixloc_ros.types import Frame, Matrix, PosePrior

SOURCE = "matches"
SIGMA_PX = 2.0  # of matched keypoints; includes the errors that they share
FLOOR_M, FLOOR_DEG = 0.05, 0.1  # least sigma per axis: the model's points are not exact either


@dataclass(frozen=True, slots=True)
class FeatureMatches:
    """Proposes the pose that projects the references' points onto the matched keypoints (PnP)."""

    model: ColmapModel
    T_map_world: Matrix  # (4, 4); world is the frame of the model
    keypoints: Path  # HDF5, one group per image
    matches: Path  # HDF5, one group per pair
    pairs: Mapping[str, Sequence[str]]  # names of references by frame name

    def propose(self, frame: Frame, features: FeaturePyramid | None = None) -> list[PosePrior]:
        """Propose the pose of the matches; none if too few of them agree.

        Raises DataError if the files lack the frame's keypoints, or have no match with any
        reference.
        """
        matched = self._matched(frame.name)
        points_map = se3.transform(self.T_map_world, self.model.points_world[matched.points])
        solved = solve_pnp(points_map, matched.pixels, frame.camera)
        if solved is None:
            return []
        T_map_base = solved.T_map_cam @ se3.inverse(frame.T_base_cam)
        covariance = solved.covariance(points_map, frame.camera, SIGMA_PX)
        covariance = covariance + diagonal(FLOOR_M, FLOOR_DEG)
        return [PosePrior(T_map_base, covariance, SOURCE, frame.stamp_ns)]

    def _matched(self, name: str) -> _Matched:
        references = {image.name: image for image in self.model.images}
        h5py = hloc.import_h5py()
        try:
            with h5py.File(self.keypoints) as keypoints, h5py.File(self.matches) as matches:
                if f"{name}/keypoints" not in keypoints:
                    raise DataError(f"{self.keypoints} has no keypoints of '{name}'")
                pixels = np.asarray(keypoints[name]["keypoints"], np.float64)[:, :2]
                found = [
                    _keypoints_and_points(matches, name, references[reference])
                    for reference in self.pairs.get(name, ())
                    if reference in references
                ]
        except OSError as error:
            raise DataError(f"cannot read {self.keypoints} or {self.matches}: {error}") from None
        some = [pair for pair in found if pair is not None]
        if not some:
            raise DataError(f"{self.matches} has no matches of '{name}' with an image of the model")
        pairs = np.unique(np.concatenate(some), axis=0)  # several references observe the same point
        keypoint, point_id = pairs.T
        return _Matched(pixels[keypoint], np.searchsorted(self.model.point_ids, point_id))


@dataclass(frozen=True, slots=True)
class _Matched:
    """Pixels (N, 2) of a query and the indices (N,) of the points observed there."""

    pixels: Matrix
    points: NDArray[np.intp]


def _keypoints_and_points(
    matches: Any, query: str, reference: ColmapImage
) -> NDArray[np.int64] | None:
    """Return (N, 2) keypoint index and point id per match; None if the pair was not matched."""
    for separator in "/", "_":  # used by newer and by older files
        names = [name.replace("/", "-") for name in (query, reference.name)]
        for first, second in ((0, 1), (1, 0)):
            group = separator.join((names[first], names[second]))
            if group in matches:
                other = np.asarray(matches[group]["matches0"], np.int64)
                own = np.flatnonzero(other >= 0)
                other = other[own]
                keypoint, of_reference = (own, other) if first == 0 else (other, own)
                inside = of_reference < len(reference.point_ids)
                pairs = np.column_stack([keypoint, reference.point_ids[of_reference * inside]])
                return pairs[inside & (pairs[:, 1] >= 0)]
    return None
