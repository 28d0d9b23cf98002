"""Queries of earlier sessions that a map keeps, to see that no update makes it worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common import image_files
from pixloc_ros.common.image_files import Image
from pixloc_ros.errors import MapError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.feature_store import Arrays
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.schema import CameraEntry
from pixloc_ros.maps.tiles import read_tensors

FILE_NAME = "sessions.safetensors"
JPEG_QUALITY = 90
ERROR_TOLERANCE_M = 0.03  # by which the median error of held queries may grow


@dataclass(frozen=True, slots=True)
class HeldQuery:
    """An image that is in no keyframe of the map, with the pose that was believed."""

    jpeg: NDArray[np.uint8]
    camera: Camera
    T_map_base: Matrix
    T_base_cam: Matrix

    @classmethod
    def of(
        cls, image_rgb: Image, camera: Camera, T_map_base: Matrix, T_base_cam: Matrix
    ) -> HeldQuery:
        jpeg = np.frombuffer(image_files.encode(image_rgb, ".jpg", JPEG_QUALITY), np.uint8)
        return cls(jpeg, camera, T_map_base, T_base_cam)

    def image_rgb(self) -> Image:
        """(H, W, 3); raises MapError where it cannot be read."""
        image = image_files.decode(self.jpeg.tobytes())
        if image is None:
            raise MapError(f"a held query of the map's {FILE_NAME} is no image")
        return image


@dataclass(frozen=True, slots=True)
class HeldScore:
    """How well held queries are localized on a version of the map."""

    recall: float  # share accepted, and near the poses that were believed
    median_error_m: float  # of these; 0 if there is none


Judge = Callable[[Map, Sequence[HeldQuery]], HeldScore]  # localizes them on a map


@dataclass(frozen=True, slots=True)
class HeldComparison:
    """How well some held queries are localized before and after a map has changed."""

    queries: int
    before: HeldScore
    after: HeldScore

    @property
    def recall(self) -> str:
        """For tables."""
        return f"{self.before.recall:.2f} before, {self.after.recall:.2f} after, of {self.queries}"

    @property
    def median_error(self) -> str:
        """For tables."""
        before_m, after_m = self.before.median_error_m, self.after.median_error_m
        return f"{100 * before_m:.1f} cm before, {100 * after_m:.1f} cm after"

    def refuse_worse(self, change: str, remedy: str) -> None:
        """Raise MapError where fewer are found, or farther off. change: what would be worse."""
        worse_m = self.after.median_error_m - self.before.median_error_m
        if self.after.recall < self.before.recall or worse_m > ERROR_TOLERANCE_M:
            raise MapError(
                f"{change}: of {self.queries} held queries {self.after.recall:.2f} instead of "
                f"{self.before.recall:.2f} are localized, with a median error of "
                f"{100 * self.after.median_error_m:.1f} cm instead of "
                f"{100 * self.before.median_error_m:.1f} cm; {remedy}"
            )


def arrays_of(queries: Sequence[HeldQuery]) -> Arrays:
    """Arrays by name, as they are stored."""
    entries = [CameraEntry.of(query.camera).model_dump_json() for query in queries]
    return {
        "held_T_map_base": np.stack([q.T_map_base for q in queries] or [np.eye(4)])[: len(queries)],
        "held_T_base_cam": np.stack([q.T_base_cam for q in queries] or [np.eye(4)])[: len(queries)],
        "held_cameras": np.frombuffer(bytearray("\0".join(entries), "utf-8"), np.uint8),
        "held_offsets": np.cumsum([0, *(len(query.jpeg) for query in queries)]),
        "held_jpeg": np.concatenate([np.zeros(0, np.uint8), *(query.jpeg for query in queries)]),
    }


def queries_of(arrays: Mapping[str, NDArray]) -> list[HeldQuery]:
    """The queries that `arrays_of` returned the arrays of; none of an empty mapping."""
    if "held_offsets" not in arrays:
        return []
    texts = arrays["held_cameras"].tobytes().decode().split("\0")
    offsets = arrays["held_offsets"].tolist()
    return [
        HeldQuery(
            arrays["held_jpeg"][offsets[i] : offsets[i + 1]],
            CameraEntry.model_validate_json(texts[i]).camera(),
            arrays["held_T_map_base"][i],
            arrays["held_T_base_cam"][i],
        )
        for i in range(len(offsets) - 1)
    ]


def read_session_arrays(map_: Map) -> dict[str, NDArray]:
    """What a map keeps of its sessions; empty for one that was never updated."""
    if FILE_NAME not in map_.metadata.files:
        return {}
    tensors = read_tensors(map_.source, FILE_NAME)
    return {name: tensor.numpy() for name, tensor in tensors.items()}
