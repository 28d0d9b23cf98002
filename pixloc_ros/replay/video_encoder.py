"""Encode images as the packets of a video, one each, as cameras with an encoder send them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from pixloc_ros.errors import DataError
from pixloc_ros.sensors import video
from pixloc_ros.sensors.events import Image

ENCODERS = {"h264": "libx264", "h265": "libx265"}
KEY_EVERY = 10  # images; after a lost packet, decoding resumes at the next key frame
_QUALITY = "18"  # visually lossless
# Adds hashes of the pictures, by which an H.265 decoder notices damage.
_X265 = {"x265-params": "hash=1:log-level=none:pools=none:frame-threads=1"}


class VideoEncoder:
    """Encodes images in order, each into a packet that does not depend on later ones.

    Raises DataError if PyAV is missing, and for an image whose size differs from the first one's.
    """

    def __init__(self, codec: str) -> None:
        video.require_decoder()
        self._codec = codec
        self._size: tuple[int, ...] = ()
        self._encoder: Any = None  # av.CodecContext
        self._count = 0

    @property
    def encoding(self) -> str:
        """The codec and the pixel formats, as an FFMPEGPacket names them."""
        return f"{'hevc' if self._codec == 'h265' else 'h264'};{self._encoder.pix_fmt};rgb8;rgb8"

    def encode(self, image_rgb: Image) -> bytes:
        """Return the packet of the next image (H, W, 3)."""
        import av

        if self._encoder is None:
            self._size, self._encoder = image_rgb.shape, self._begun(*image_rgb.shape[:2])
        if image_rgb.shape != self._size:
            raise DataError(f"a video of {self._size[:2]} cannot go on with {image_rgb.shape[:2]}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_rgb), format="rgb24")
        frame.pts, self._count = self._count, self._count + 1
        (packet,) = self._encoder.encode(frame)
        return bytes(packet)

    def _begun(self, height: int, width: int) -> Any:
        import av

        encoder: Any = av.CodecContext.create(ENCODERS[self._codec], "w")
        encoder.height, encoder.width = height, width
        # Colours at half the resolution require even sizes.
        encoder.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        encoder.gop_size = KEY_EVERY
        encoder.time_base, encoder.framerate = Fraction(1, 10), Fraction(10)
        encoder.thread_count = 1
        encoder.options = {"crf": _QUALITY, "tune": "zerolatency"}
        encoder.options |= _X265 if self._codec == "h265" else {}
        return encoder
