"""Video of a camera: packets of H.264 or H.265 to images, each with the stamp of its packet.

Every packet is decoded when it comes, as later ones build upon it; to RGB an image is converted
only when it is worked on. Where a packet is missing or broken, nothing is handed on before the
next key frame: what a decoder conceals looks like an image and is none.
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
MAX_EXPECTED = 64  # packets whose images have yet to come; both standards reorder 16 at most
_BEGINNING = "the beginning"
# Parts of the names of codecs, and of FFmpeg's encoders for them.
_CODECS = {"264": "h264", "265": "hevc", "hevc": "hevc"}
_OPTIONS = {
    "max_pixels": str(MAX_PIXELS),  # judged before memory is asked for
    "err_detect": "explode+crccheck",  # an error rather than an image that hides one
}


def is_packet(message: Any) -> bool:
    """Return whether a message is an FFMPEGPacket or a CompressedVideo rather than a picture."""
    return hasattr(message, "pts") or hasattr(message, "timestamp")


def require_decoder() -> None:
    """Raise DataError where PyAV is not installed."""
    if find_spec("av") is None:
        raise DataError(f"images that come as H.264 or H.265 need PyAV: {REMEDY}")


def is_key(message: Any) -> bool:
    """Return whether decoding can begin with a packet; False for what is none."""
    try:
        return is_key_frame(_codec(message), units(bytes(message.data)))
    except (BadMessage, Malformed):
        return False


@dataclass(frozen=True, slots=True)
class _Packet:
    stamp_ns: int
    frame_id: str
    codec: str  # as FFmpeg calls it
    data: bytes


class VideoDecoder:
    """Makes events of the packets of one camera, in their order: an image or a refusal of each.

    Images come in the order in which they were taken; where the video has B-frames, that is some
    packets after their own.
    """

    def __init__(self, camera_name: str = "") -> None:
        self._camera_name = camera_name
        self._codec = ""
        self._decoder: Any = None  # av.CodecContext
        self._numbers = H264FrameNumbers()
        self._broken = _BEGINNING  # after what no packet can be decoded but a key frame
        self._count = 0
        self._expected: dict[int, _Packet] = {}  # by number, whose images have yet to come

    def take(self, message: Any, received_ns: int) -> list[Event]:
        """Decode one packet. Raises nothing: what cannot be used is a RefusedMessage."""
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
        """Return the images that were still to come; only a key frame can follow."""
        self._broken = self._broken or "a packet that was refused"
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
        """Make a decoder. Raises BadMessage where there is none."""
        try:
            require_decoder()
        except DataError as error:
            raise BadMessage("video_decoder_missing", str(error)) from None
        import av

        self._decoder = av.CodecContext.create(codec, "r")
        self._decoder.thread_count = 1  # more of them would hand images out later
        self._decoder.options = _OPTIONS
        self._codec, self._numbers, self._broken = codec, H264FrameNumbers(), _BEGINNING

    def _judge(self, packet: _Packet) -> None:
        """Raise BadMessage for a packet that cannot be decoded after those before."""
        try:
            headers = units(packet.data)
            if is_key_frame(packet.codec, headers):
                self._broken = ""
            if self._broken:
                line = f"after {self._broken} no picture can be decoded before the next key frame"
                raise BadMessage("video_awaits_key_frame", line)
            follows = packet.codec != "h264" or self._numbers.follows(headers)
        except Malformed as error:
            self._broken = "a packet that is broken"
            raise BadMessage("video_malformed", f"no picture of {packet.codec}: {error}") from None
        if not follows:
            self._broken = "a packet that was lost"
            raise BadMessage("video_packet_lost", "a picture that it builds upon has not come")

    def _decode(self, packet: _Packet) -> list[Event]:
        """Hand a packet to the decoder, take what comes out. Raises BadMessage for an error."""
        import av

        self._count += 1
        self._expected[self._count] = packet
        content = av.Packet(packet.data)
        content.pts = self._count
        try:
            frames = self._decoder.decode(content)
        except av.FFmpegError as error:
            del self._expected[self._count]
            self._broken = "a packet that could not be decoded"
            line = f"{packet.codec} of {len(packet.data)} bytes is not decoded: {error.strerror}"
            raise BadMessage("video_undecodable", line) from None
        events = self._images(frames)
        return events + self._given_up(list(self._expected)[:-MAX_EXPECTED])

    def _images(self, frames: list[Any]) -> list[Event]:
        """Events of decoded frames, and of the packets that were passed over."""
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
        """Refusals of packets whose images will not come any more."""
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
    """The stamp of a message. Raises BadMessage where it was never set."""
    stamp_ns = decoding.stamp_ns(header(message))
    if stamp_ns <= 0:
        raise BadMessage("no_stamp", "the packet has no stamp")
    return stamp_ns


def _packet(message: Any) -> _Packet:
    """A packet whose fields can be used. Raises BadMessage."""
    if not 0 < len(message.data) <= MAX_PACKET_BYTES:
        raise BadMessage("video_malformed", f"a packet of {len(message.data)} bytes")
    frame_id = decoding.frame_id(header(message).frame_id)
    return _Packet(_stamp_ns(message), frame_id, _codec(message), bytes(message.data))


def _codec(message: Any) -> str:
    """The codec by the name that it has in a message. Raises BadMessage for those not read."""
    named = message.encoding if hasattr(message, "encoding") else message.format
    name = named.partition(";")[0].lower()
    for part, codec in _CODECS.items():
        if part in name:
            return codec
    raise BadMessage("video_codec", f"video in '{named[:40]}': H.264 and H.265 can be read")


def _undecodable(packet: _Packet) -> BadMessage:
    line = f"no whole picture came of {packet.codec} of {len(packet.data)} bytes"
    return BadMessage("video_undecodable", line)
