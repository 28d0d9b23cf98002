"""Decode a camera's video: packets of H.264 or H.265 to images, each with its packet's stamp.

Each packet is decoded when it comes, because later ones depend on it; the conversion to RGB waits
until an image is processed. After a missing or broken packet no image is returned until the next
key frame: decoders conceal errors by inventing image content.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np

from pixloc_ros.errors import DataError
from pixloc_ros.sensors import decoding
from pixloc_ros.sensors.conversion import guarded
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import Event, Image, ImageEvent, RefusedMessage, Size
from pixloc_ros.sensors.video_bitstream import H264FrameNumbers, Malformed, is_key_frame, units

REMEDY = "pip install 'pixloc_ros[video]'"
MAX_PIXELS = 139_264 * 256  # the most that any level of H.264 and H.265 allows
MAX_PACKET_BYTES = 64 << 20
MAX_EXPECTED = 64  # packets whose images have yet to come; both standards reorder at most 16
_BEGINNING = "the beginning"
# Substrings of codec names, and of the names of FFmpeg's encoders for them.
_CODECS = {"264": "h264", "265": "hevc", "hevc": "hevc"}
_OPTIONS = {
    "max_pixels": str(MAX_PIXELS),  # checked before memory is allocated
    "err_detect": "explode+crccheck",  # report an error instead of concealing it
}


def is_packet(message: Any) -> bool:
    """Return whether a message is an FFMPEGPacket or a CompressedVideo rather than a picture."""
    return hasattr(message, "pts") or hasattr(message, "timestamp")


def require_decoder() -> None:
    """Raise DataError if PyAV is not installed."""
    if find_spec("av") is None:
        raise DataError(f"images that come as H.264 or H.265 need PyAV: {REMEDY}")


def is_key(message: Any) -> bool:
    """Return whether decoding can begin with this message; False if it is not a packet."""
    try:
        return is_key_frame(_codec(message), units(bytes(message.data)))
    except (BadMessage, Malformed):
        return False


@dataclass(frozen=True, slots=True)
class _Packet:
    stamp_ns: int
    frame_id: str
    codec: str  # FFmpeg's name
    data: bytes


class VideoDecoder:
    """Converts the packets of one camera, in order, each to an image or a refusal.

    Images come in the order in which they were taken; if the video has B-frames, that is some
    packets after their own.
    """

    def __init__(self, camera_name: str = "") -> None:
        self._camera_name = camera_name
        self._codec = ""
        self._decoder: Any = None  # av.CodecContext
        self._numbers = H264FrameNumbers()
        self._broken = _BEGINNING  # why only a key frame can be decoded next; empty: any packet can
        self._count = 0
        self._expected: dict[int, _Packet] = {}  # packets whose images have yet to come, by number

    def take(self, message: Any, received_ns: int) -> list[Event]:
        """Decode one packet. Raises nothing: an unusable one becomes a RefusedMessage."""
        stamp_ns, events = received_ns, list[Event]()
        try:
            stamp_ns = guarded(lambda: _stamp_ns(message))
            packet = guarded(lambda: _packet(message))
            if packet.codec != self._codec:
                events += self.finish()
                self._begin(packet.codec)
            self._judge(packet)
            return events + guarded(lambda: self._decode(packet))
        except BadMessage as error:
            return [*events, *self.finish(), self._refusal(stamp_ns, error)]

    def finish(self) -> list[Event]:
        """Return the images that were still to come; after that only a key frame can follow."""
        self._broken = self._broken or "a refused packet"
        if self._decoder is None or not self._decoder.is_open:
            return []
        import av

        try:
            events = self._images(self._decoder.decode(None))
        except av.FFmpegError:
            events = []
        self._decoder.flush_buffers()
        return events + self._given_up(list(self._expected))

    def _begin(self, codec: str) -> None:
        """Create a decoder. Raises BadMessage if there is none for the codec."""
        try:
            require_decoder()
        except DataError as error:
            raise BadMessage("video_decoder_missing", str(error)) from None
        import av

        self._decoder = av.CodecContext.create(codec, "r")
        self._decoder.thread_count = 1  # with more threads images come out later
        self._decoder.options = _OPTIONS
        self._codec, self._numbers, self._broken = codec, H264FrameNumbers(), _BEGINNING

    def _judge(self, packet: _Packet) -> None:
        """Raise BadMessage for a packet that cannot be decoded after those before it."""
        try:
            headers = units(packet.data)
            if is_key_frame(packet.codec, headers):
                self._broken = ""
            if self._broken:
                line = f"after {self._broken}, no picture can be decoded before the next key frame"
                raise BadMessage("video_awaits_key_frame", line)
            follows = packet.codec != "h264" or self._numbers.follows(headers)
        except Malformed as error:
            self._broken = "a broken packet"
            raise BadMessage("video_malformed", f"no {packet.codec} picture: {error}") from None
        if not follows:
            self._broken = "a lost packet"
            raise BadMessage("video_packet_lost", "a picture that it depends on was lost")

    def _decode(self, packet: _Packet) -> list[Event]:
        """Pass a packet to the decoder, return what comes out. Raises BadMessage for an error."""
        import av

        self._count += 1
        self._expected[self._count] = packet
        content = av.Packet(packet.data)
        content.pts = self._count
        try:
            frames = self._decoder.decode(content)
        except av.FFmpegError as error:
            del self._expected[self._count]
            self._broken = "an undecodable packet"
            line = f"{packet.codec} of {len(packet.data)} bytes cannot be decoded: {error.strerror}"
            raise BadMessage("video_undecodable", line) from None
        events = self._images(frames)
        return events + self._given_up(list(self._expected)[:-MAX_EXPECTED])

    def _images(self, frames: list[Any]) -> list[Event]:
        """Return events of decoded frames, and refusals of the packets that were skipped."""
        events: list[Event] = []
        for frame in frames:
            packet = self._expected.pop(frame.pts, None)
            if packet is None:
                continue
            earlier = [i for i, p in self._expected.items() if p.stamp_ns < packet.stamp_ns]
            events += self._given_up(earlier)
            if frame.is_corrupt:
                events.append(self._refusal(packet.stamp_ns, _undecodable(packet)))
            else:
                events.append(self._image(packet, frame))
        return events

    def _image(self, packet: _Packet, frame: Any) -> ImageEvent:
        def decode(size: Size | None) -> Image:
            decoding.check_size((frame.width, frame.height), size, MAX_PIXELS)
            return np.asarray(guarded(lambda: frame.to_ndarray(format="rgb24")), np.uint8)

        return ImageEvent(packet.stamp_ns, packet.frame_id, decode, self._camera_name)

    def _given_up(self, numbers: list[int]) -> list[Event]:
        """Return refusals of packets whose images will not come any more."""
        packets = [self._expected.pop(number) for number in numbers]
        return [self._refusal(packet.stamp_ns, _undecodable(packet)) for packet in packets]

    def _refusal(self, stamp_ns: int, error: BadMessage) -> RefusedMessage:
        return RefusedMessage(stamp_ns, "image", error.reason, str(error), self._camera_name)


def header(message: Any) -> Any:
    """Return stamp and frame of a message; a CompressedVideo has no header of its own."""
    if hasattr(message, "timestamp"):
        return SimpleNamespace(stamp=message.timestamp, frame_id=message.frame_id)
    return message.header


def _stamp_ns(message: Any) -> int:
    """Return the stamp of a message. Raises BadMessage if it was never set."""
    stamp_ns = decoding.stamp_ns(header(message))
    if stamp_ns <= 0:
        raise BadMessage("no_stamp", "the packet has no stamp")
    return stamp_ns


def _packet(message: Any) -> _Packet:
    """Read and check the fields of a packet. Raises BadMessage."""
    if not 0 < len(message.data) <= MAX_PACKET_BYTES:
        raise BadMessage("video_malformed", f"a packet of {len(message.data)} bytes")
    frame_id = decoding.frame_id(header(message).frame_id)
    return _Packet(_stamp_ns(message), frame_id, _codec(message), bytes(message.data))


def _codec(message: Any) -> str:
    """Return FFmpeg's name of a message's codec. Raises BadMessage if it is not supported."""
    named = message.encoding if hasattr(message, "encoding") else message.format
    name = named.partition(";")[0].lower()
    for part, codec in _CODECS.items():
        if part in name:
            return codec
    raise BadMessage("video_codec", f"video in '{named[:40]}': H.264 and H.265 can be read")


def _undecodable(packet: _Packet) -> BadMessage:
    line = f"no complete picture in {len(packet.data)} bytes of {packet.codec}"
    return BadMessage("video_undecodable", line)
