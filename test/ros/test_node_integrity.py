"""The live node corrects what odometry got wrong once two frames agree."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.messages import changed, shifted, up_to_frame, without


@pytest.mark.ros
@pytest.mark.slow
def test_wheels_that_slipped_during_an_outage_are_corrected_by_two_frames(
    rig: Any, bag: Any
) -> None:
    messages = without(bag)
    before = up_to_frame(messages, 3)
    assert all(v.localized for v in rig.play(before))
    newest = [message for topic, message in before if topic == "/odom"][-1]
    outage_s, slipped_m = 6.0, 30.0

    def slip(message: Any, share: float) -> Any:
        y = message.pose.pose.position.y + share * slipped_m
        return changed(shifted(message, share * outage_s), **{"pose.pose.position.y": y})

    for tick in range(1, 31):
        rig.send("/odom", slip(newest, tick / 30))
    rig.until(rig.arrived, "the odometry")
    rest = up_to_frame(messages, 7)[len(before) :]
    late = [(t, slip(m, 1.0) if t == "/odom" else shifted(m, outage_s)) for t, m in rest]
    fix = shifted([m for t, m in before if t == "/gnss/fix"][-1], outage_s)
    rig.send("/gnss/fix", fix)
    rig.forget()
    verdicts = rig.play(late)
    assert [v.reason for v in verdicts[:2]] == ["unconfirmed", "ok"], verdicts[0].message
    assert verdicts[0].prior_source == "gnss"
    assert "1 of 2 frames agree" in verdicts[0].message
    assert all(v.localized for v in verdicts[1:])
    rig.until(lambda: len(rig.poses) == len(verdicts) - 1, "a pose for each but the first")
    rig.until(
        lambda: (
            rig.transforms and abs(rig.transforms[-1].transform.translation.y) > 0.5 * slipped_m
        ),
        "a transform that is corrected",
    )
