"""The images of one moment: of the only camera, or of several that were taken together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import Image, ImageEvent, RefusedMessage, Size

DecodedImages = Mapping[str, Image | BadMessage]


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """Undecoded images by camera, the lead first; a refused image is always alone."""

    images: Mapping[str, ImageEvent | RefusedMessage]
    epoch: int  # how often time had gone back when they came
    odd_s: float = 0.0  # how far an odd stamp is from the previous one; 0: the stamp is not odd

    @property
    def lead(self) -> ImageEvent | RefusedMessage:
        """The image of the first camera that has one."""
        return next(iter(self.images.values()))

    @property
    def stamp_ns(self) -> int:
        """Stamp of the lead image."""
        return self.lead.stamp_ns

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest image."""
        return max(image.stamp_ns for image in self.images.values())

    @property
    def received_s(self) -> float:
        """When the first image arrived, by time.perf_counter() of a live node."""
        images = self.images.values()
        return min((i.received_s for i in images if isinstance(i, ImageEvent)), default=0.0)

    def decode(self, sizes: Mapping[str, Size | None]) -> DecodedImages:
        """Decode all images; a BadMessage stands for an image that cannot be decoded.

        sizes: calibrated sizes (width, height) by camera; an image of another size is not decoded.
        """
        return {name: _decoded(image, sizes.get(name)) for name, image in self.images.items()}


def _decoded(image: ImageEvent | RefusedMessage, size: Size | None) -> Image | BadMessage:
    if isinstance(image, RefusedMessage):
        return BadMessage(image.reason, image.message)
    try:
        return image.decode(size)
    except BadMessage as error:
        return error
