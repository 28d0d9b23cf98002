"""A camera that sends video, and a node that takes it as it comes."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.messages import up_to_frame, without
from helpers.node_checks import errors
from helpers.video import as_video, of_rclpy
from pixloc_ros.sensors import decoding, topics, video

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.mark.parametrize(
    ("kind", "codec"),
    [(topics.FFMPEG_PACKET, "hevc"), (topics.COMPRESSED_VIDEO, "h264")],
    ids=["ffmpeg h265", "foxglove h264"],
)
def test_a_video_is_localized_and_a_lost_packet_told(
    kind: str, codec: str, node: Any, bag: Any, truth: Any
) -> None:
    from helpers.live import fresh_rig

    process, domain = node
    drive = up_to_frame(without(bag), 13)
    images = [message for topic, message in drive if topic == "/image"]
    packets = iter([of_rclpy(each) for each in as_video(kind, codec, images)])
    sent = [(topic, next(packets) if topic == "/image" else m) for topic, m in drive]
    lost = [m for topic, m in sent if topic == "/image"][3]
    with fresh_rig(domain, video=kind) as rig:
        verdicts = rig.play([(topic, m) for topic, m in sent if m is not lost])
        assert process.poll() is None, "the node is gone"
        assert [v.reason for v in verdicts] == ["ok"] * 3 + ["bad_image"] * 6 + ["ok"] * 3
        rig.until(lambda: len(rig.poses) == 6, "poses")
        assert errors(verdicts, rig.poses, truth)[:, 0].max() < 0.25
        counts = rig.report()
    awaited = [name for name in counts if name == "count image.bad.video_awaits_key_frame"]
    assert awaited and counts[awaited[0]].startswith("5"), counts
    stamps = [decoding.stamp_ns(v.header) for v in verdicts]
    others = [m for topic, m in sent if topic == "/image" and m is not lost]
    assert stamps == [decoding.stamp_ns(video.header(m)) for m in others]
