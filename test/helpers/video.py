"""Videos of images, as packets and as messages. Needs PyAV and its encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from pixloc_ros.replay import messages
from pixloc_ros.sensors import decoding, topics

ENCODERS = {"h264": "libx264", "hevc": "libx265"}
QUIET = {"x265-params": "log-level=none:pools=none:frame-threads=1"}

Packet = tuple[int, bytes]  # the index of its image, and its content


def packets(
    images: Sequence[np.ndarray], codec: str, b_frames: bool = False, key_every: int = 10
) -> list[Packet]:
    """Images (H, W, 3) as a video, in the order in which they are sent."""
    import av

    encoder: Any = av.CodecContext.create(ENCODERS[codec], "w")
    encoder.height, encoder.width = images[0].shape[:2]
    encoder.pix_fmt, encoder.gop_size = "yuv420p", key_every
    encoder.time_base, encoder.framerate = Fraction(1, 10), Fraction(10)
    encoder.thread_count = 1
    encoder.options = {"crf": "16", **(QUIET if codec == "hevc" else {})}
    encoder.options |= {} if b_frames else {"tune": "zerolatency"}
    found = []
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = index
        found += encoder.encode(frame)
    return [(packet.pts, bytes(packet)) for packet in found + encoder.encode(None)]


def message(kind: str, stamp_ns: int, codec: str, data: bytes, frame_id: str = "cam") -> Any:
    """A message of `rosbags` of either type, with one packet."""
    make, header = messages.typestore().types[kind], messages.header(stamp_ns, frame_id)
    content = np.frombuffer(data, np.uint8)
    if kind == topics.COMPRESSED_VIDEO:
        name = {"h264": "h264", "hevc": "h265"}[codec]
        return make(timestamp=header.stamp, frame_id=frame_id, data=content, format=name)
    size, name = {"width": 0, "height": 0}, f"{codec};yuv420p;bgr8;bgr8"
    return make(
        header=header, encoding=name, pts=0, flags=0, is_bigendian=False, data=content, **size
    )


def as_video(kind: str, codec: str, images: Sequence[Any], b_frames: bool = False) -> list[Any]:
    """Messages of images (sensor_msgs/Image) as messages of their video, in its order."""
    stamps_ns = [decoding.stamp_ns(each.header) for each in images]
    frame_id = images[0].header.frame_id
    coded = packets([decoding.image_rgb(each) for each in images], codec, b_frames)
    return [message(kind, stamps_ns[index], codec, data, frame_id) for index, data in coded]


def changed(packet: Any, data: np.ndarray) -> Any:
    """A message with other content."""
    return replace(packet, data=data)


def of_rclpy(packet: Any) -> Any:
    """A message of `rosbags` as one of rclpy."""
    from rclpy.serialization import deserialize_message

    from pixloc_ros.ros.message_basics import message_class

    kind = packet.__msgtype__
    content = bytes(messages.typestore().serialize_cdr(packet, kind))
    return deserialize_message(content, message_class(kind))
