"""Parameters of the live node that can be set while it works, and what they do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from helpers.messages import shifted, up_to_frame, without
from pixloc_ros.config import AcceptanceConfig, Config, flatten
from pixloc_ros.sensors import decoding


class Knobs:
    """Sets parameters of the node; `restore` brings the defaults back."""

    def __init__(self, rig: Any) -> None:
        self._rig = rig
        self._touched: set[str] = set()

    def turn(self, **values: Any) -> str:
        """Set `section__name=value` all at once; the reason of a refusal, or ""."""
        from rcl_interfaces.srv import SetParametersAtomically
        from rclpy.parameter import Parameter

        named = {name.replace("__", "."): value for name, value in values.items()}
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in named.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        answer = self._rig.call(SetParametersAtomically, "set_parameters_atomically", request)
        if answer.result.successful:
            self._touched |= named.keys()
        return "" if answer.result.successful else answer.result.reason

    def restore(self) -> None:
        defaults = dict(flatten(Config())) | {"node.diagnostics_rate_hz": 10.0}
        before = {name.replace(".", "__"): defaults[name] for name in self._touched}
        assert self.turn(**before) == ""


@pytest.fixture
def knobs(rig: Any) -> Iterator[Knobs]:
    knobs = Knobs(rig)
    yield knobs
    knobs.restore()


@pytest.mark.ros
@pytest.mark.slow
def test_gates_and_rates_change_at_once(rig: Any, bag: Any, knobs: Knobs) -> None:
    assert knobs.turn(priors__gnss_max_sigma_m=1e-3, acceptance__max_cost=1e-6) == ""
    messages = without(bag)
    rig.play(up_to_frame(messages, 0))
    assert rig.report()["count prior.rejected.gnss_too_vague"] == "1"
    assert rig.look(bag.on("/image")[0]).prior_source != "gnss"
    knobs.restore()
    rig.send("/gnss/fix", shifted(bag.on("/gnss/fix")[0], 0.001))
    rig.until(rig.arrived, "a fix")
    assert knobs.turn(acceptance__max_cost=1e-6) == ""
    verdict = rig.look(shifted(bag.on("/image")[0], 0.001))
    assert verdict.reason == "high_cost"
    assert "0.00" in verdict.message
    knobs.restore()
    assert rig.look(shifted(bag.on("/image")[0], 0.002)).reason == "ok"
    assert knobs.turn(node__tf_rate_hz=50.0, node__diagnostics_rate_hz=20.0) == ""
    assert rig.report()["reason"] == "ok"


@pytest.mark.ros
@pytest.mark.slow
def test_what_cannot_be_is_refused_and_changes_nothing(rig: Any, knobs: Knobs) -> None:
    refused = knobs.turn(acceptance__max_cost=0.5, view__keyframes=2)
    assert "'view.keyframes' is read when the node is configured: deactivate" in refused
    assert "acceptance." in refused, "says what can be set"
    refused = knobs.turn(acceptance__max_wrong_probability=2.0)
    assert "acceptance.max_wrong_probability" in refused and "1.0" in refused, "name and range"
    assert "type" in knobs.turn(acceptance__max_cost="cheap")
    assert knobs.turn(acceptance__max_kost=0.5)
    for name in ("node.diagnostics_rate_hz", "node.tf_rate_hz"):
        for value in (1e-12, 1e-300, -1.0, math.nan, math.inf):
            assert name in knobs.turn(**{name.replace(".", "__"): value}), value
    for name in ("max_coast_s", "odometry_max_gap_s", "gnss_max_age_s"):
        assert name in knobs.turn(**{f"priors__{name}": math.inf})
    names = ("acceptance.max_cost", "acceptance.max_wrong_probability", "view.keyframes")
    assert rig.parameters(*names) == [0.9, AcceptanceConfig().max_wrong_probability, 3]
    assert knobs.turn(view__keyframes=3, acceptance__max_cost=0.7) == "", "nothing fixed changes"


@pytest.mark.ros
@pytest.mark.slow
def test_the_smoothed_transform_lags_and_the_pose_does_not(
    rig: Any, bag: Any, truth: Any, knobs: Knobs
) -> None:
    from helpers.node_checks import errors

    assert knobs.turn(node__tf_smoothing_s=1e4) == ""
    messages = without(bag)
    rig.play(up_to_frame(messages, 6))
    rig.until(lambda: len(rig.poses) == 6 and len(rig.transforms) > 3, "poses and transforms")
    assert errors(rig.statuses, rig.poses, truth)[:, 0].max() < 0.25
    first, last = (decoding.pose(rig.transforms[i].transform) for i in (0, -1))
    np.testing.assert_allclose(last, first, atol=1e-5)
    newest = [m for topic, m in up_to_frame(messages, 6) if topic == "/odom"][-1]
    assert knobs.turn(node__tf_smoothing_s=0.0) == ""
    rig.send("/odom", shifted(newest, 0.04))

    def off() -> float:
        return float(np.abs(decoding.pose(rig.transforms[-1].transform) - first).max())

    rig.until(lambda: off() > 1e-3, "a transform that is not smoothed")
