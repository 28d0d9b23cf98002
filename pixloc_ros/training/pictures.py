"""Images of posed views: undistorted, reduced to the size needed for training, and cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.posed_images import read_image
from pixloc_ros.training.depth_maps import DepthMap, read_depth
from pixloc_ros.training.scenes import TrainingView

THREADS = 4
TURNED = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
Size = tuple[int, int]  # width and height
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """rgb: (3, h, w) uint8 on the device. camera: its pinhole. depth: as stored in the file."""

    rgb: Tensor
    camera: Camera
    depth: DepthMap | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it occupies."""
        return self.rgb.nbytes + (self.depth.depth.nbytes if self.depth else 0)


class PictureCache:
    """Keeps the most recently used pictures, within a memory budget.

    size: of the images that are cut out of the pictures.
    least_share: smallest share of a picture that is cut out.
    """

    def __init__(
        self, size: Size, least_share: float, device: torch.device | str, budget_gib: float
    ) -> None:
        self._size, self._least_share, self._device = size, least_share, device
        self._budget_bytes = int(budget_gib * 2**30)
        self._pictures: OrderedDict[TrainingView, Picture] = OrderedDict()
        self._bytes = 0

    def get(self, views: Sequence[TrainingView]) -> dict[TrainingView, Picture]:
        """Return the pictures of those views whose files can be read."""
        known = {view: self._pictures[view] for view in views if view in self._pictures}
        unknown = [view for view in dict.fromkeys(views) if view not in known]
        with ThreadPoolExecutor(THREADS) as pool:
            read = dict(zip(unknown, pool.map(self._read, unknown), strict=True))
        fresh = {view: picture for view, picture in read.items() if picture is not None}
        for view in known:
            self._pictures.move_to_end(view)
        self._keep(fresh)
        return known | fresh

    def _keep(self, fresh: dict[TrainingView, Picture]) -> None:
        self._pictures.update(fresh)
        self._bytes += sum(picture.nbytes for picture in fresh.values())
        while self._bytes > self._budget_bytes and self._pictures:
            _, oldest = self._pictures.popitem(last=False)
            self._bytes -= oldest.nbytes

    def _read(self, view: TrainingView) -> Picture | None:
        try:
            image = _upright(view)
            depth = read_depth(view.depth, view.camera, view.turns) if view.depth else None
        except (MapError, DataError):
            return None
        pinhole = Camera.create("PINHOLE", *(_numbers(view.camera, f) for f in PINHOLE_FIELDS))
        if view.camera.model != "PINHOLE":
            image = _undistorted(image, view.camera, pinhole)
        return replace(self._reduced(image, pinhole), depth=depth)

    def _reduced(self, image: Image, camera: Camera) -> Picture:
        """Reduce an image to the size that the smallest crop needs, so that it is read faster."""
        height, width = image.shape[:2]
        covering = max(self._size[0] / width, self._size[1] / height)
        factor = min(1.0, covering / self._least_share)
        if factor < 1:
            size = (round(width * factor), round(height * factor))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            camera = camera.scale((size[0] / width, size[1] / height))
        rgb = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0).contiguous()
        return Picture(rgb.to(self._device), camera)


PINHOLE_FIELDS = ("size", "focal", "center")


def _numbers(camera: Camera, field: str) -> list[float]:
    return getattr(camera, field).tolist()


def _upright(view: TrainingView) -> Image:
    """Read the image, rotated as the view's camera has it. Raises MapError."""
    turn = TURNED[view.turns % 4]
    if turn is None:
        return read_image(view.path, view.camera)
    taken = view.camera
    if view.turns % 2:
        taken = Camera.create("PINHOLE", [taken.height, taken.width], [1.0, 1.0], [0.0, 0.0])
    return np.asarray(cv2.rotate(read_image(view.path, taken), turn), np.uint8)


def _undistorted(image: Image, camera: Camera, pinhole: Camera) -> Image:
    """Return what a pinhole of the same size, focal length and centre would have seen."""
    height, width = image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    pixels = np.stack([x.ravel(), y.ravel()], -1)
    rays = (pixels - pinhole.center.numpy()) / pinhole.focal.numpy()
    points = np.column_stack([rays, np.ones(len(rays))])
    source, _ = camera.project(torch.from_numpy(points))
    u, v = source.numpy().astype(np.float32).reshape(height, width, 2).transpose(2, 0, 1)
    return np.asarray(
        cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
