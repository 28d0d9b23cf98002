"""A map in memory: opened from its folder, features memory-mapped, no pickle and no pycolmap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pixloc_ros.config import ViewConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps import schema, view
from pixloc_ros.maps.schema import Datum, MapMetadata


@dataclass(frozen=True, slots=True)
class Map:
    """Keyframes, points and reference features.

    An observation is a point seen by a keyframe and names the feature row to use for it: its own
    one when the features are stored per observation, the point's only one when averaged.
    """

    metadata: MapMetadata
    sha256: str  # stands for all files of the map
    keyframe_names: tuple[str, ...]
    keyframe_T_map_cam: NDArray[np.float64]  # (M, 4, 4)
    keyframe_camera: NDArray[np.int32]  # (M,) index into cameras
    keyframe_descriptors: NDArray[np.float16] | None  # (M, D) of whole images; not in older maps
    observation_offsets: NDArray[np.int64]  # (M + 1,) where each keyframe's observations begin
    observation_point: NDArray[np.int32]  # (O,)
    observation_row: NDArray[np.int32]  # (O,)
    covisible_offsets: NDArray[np.int64]  # (M + 1,) where each keyframe's neighbours begin
    covisible_keyframe: NDArray[np.int32]  # (C,)
    covisible_points: NDArray[np.int32]  # (C,) count of shared points
    points: NDArray[np.float32]  # (P, 3) relative to origin
    point_error_px: NDArray[np.float32]  # (P,) mean reprojection error, -1 where unknown
    point_priority: NDArray[np.float32]  # (P,) 0..1, which points to prefer
    row_point: NDArray[np.int32]  # (R,)
    row_keyframe: NDArray[np.int32]  # (R,) -1 when averaged
    features: tuple[Tensor, ...]  # (R, C) float16 of unit norm, coarse to fine
    confidences: tuple[Tensor, ...]  # (R,) float16, coarse to fine

    @classmethod
    def load(cls, folder: str | Path, verify: bool = True) -> Map:
        """Open a map; features stay on disk until they are used.

        verify: compare every file with its SHA-256.
        Raises MapError when a file is missing, altered, or of another schema version.
        """
        folder = Path(folder).expanduser()
        metadata, sha256 = schema.read(folder)
        if verify:
            schema.check_files(folder, metadata)
        if len(metadata.tiles) != 1:
            raise MapError(f"{folder} has {len(metadata.tiles)} tiles, this program reads one")
        tensors = _open(folder / metadata.keyframes_file) | _open(folder / metadata.tiles[0].file)
        try:
            return _assemble(metadata, sha256, tensors)
        except KeyError as error:
            raise MapError(f"{folder} lacks the array {error}; rebuild the map") from None

    @property
    def origin(self) -> NDArray[np.float64]:
        """(3,) map coordinates of the points' zero."""
        return np.array(self.metadata.tiles[0].origin)

    @property
    def datum(self) -> Datum | None:
        return self.metadata.datum

    @property
    def T_base_cam(self) -> NDArray[np.float64] | None:
        """(4, 4) of the camera that took the keyframes, where known."""
        return schema.as_matrix(self.metadata.T_base_cam)

    @property
    def model_id(self) -> str:
        return self.metadata.model_id

    @property
    def weights_sha256(self) -> str:
        return self.metadata.weights_sha256

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Cameras that took the keyframes."""
        return tuple(entry.camera() for entry in self.metadata.cameras)

    def points_map(self) -> NDArray[np.float64]:
        """(P, 3) in map coordinates."""
        return self.points + self.origin

    def view(
        self,
        T_map_cam_prior: NDArray[np.float64],
        camera: Camera,
        config: ViewConfig,
        device: str = "cpu",
    ) -> view.MapView:
        """Points and reference features worth aligning at this prior, see view.select."""
        return view.select(self, T_map_cam_prior, camera, config, device)


def _open(path: Path) -> dict[str, Tensor]:
    try:
        # Through torch the tensors are memory-mapped; through numpy they would be read whole.
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise MapError(f"{path} cannot be read ({error}); copy the map again") from None


def _assemble(metadata: MapMetadata, sha256: str, tensors: Mapping[str, Tensor]) -> Map:
    levels = range(len(metadata.dims))
    arrays = {name: tensors[name].numpy() for name in ARRAYS}
    descriptors = tensors.get("keyframe_descriptors")
    return Map(
        metadata=metadata,
        sha256=sha256,
        keyframe_names=unpack_names(tensors["keyframe_names"].numpy()),
        keyframe_descriptors=None if descriptors is None else descriptors.numpy(),
        features=tuple(tensors[f"features_{level}"] for level in levels),
        confidences=tuple(tensors[f"confidences_{level}"] for level in levels),
        **arrays,
    )


KEYFRAME_ARRAYS = (
    "keyframe_T_map_cam",
    "keyframe_camera",
    "observation_offsets",
    "observation_point",
    "observation_row",
    "covisible_offsets",
    "covisible_keyframe",
    "covisible_points",
)
POINT_ARRAYS = ("points", "point_error_px", "point_priority", "row_point", "row_keyframe")
ARRAYS = KEYFRAME_ARRAYS + POINT_ARRAYS


def pack_names(names: Sequence[str]) -> NDArray[np.uint8]:
    """Names as one array of bytes, so that map.json stays small."""
    return np.frombuffer(bytearray("\0".join(names), "utf-8"), np.uint8)


def unpack_names(packed: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(packed.tobytes().decode().split("\0"))
