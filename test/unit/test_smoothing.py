"""The smoothed transform map to odom: where it goes, how fast, and when it does not wait."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.priors import at_s, pose
from pixloc_ros.geometry import se3
from pixloc_ros.priors.smoothing import TransformSmoother

TAU_S = 0.5
FAR_AWAY = pose(1000.0, -400.0, 70.0)  # T_odom_base, an hour of driving from the start


class Smoother(TransformSmoother):
    """One whose limits are 1 m and 5 degrees."""

    def __init__(self, time_constant_s: float) -> None:
        super().__init__()
        self._time_constant_s = time_constant_s

    def send(self, stamp_ns: int, T_map_odom: np.ndarray, T_odom_base: np.ndarray) -> np.ndarray:
        return self.step(stamp_ns, T_map_odom, T_odom_base, self._time_constant_s, 1.0, 5.0)


def smoother(time_constant_s: float = TAU_S) -> Smoother:
    return Smoother(time_constant_s)


def left(T_sent: np.ndarray, T_found: np.ndarray, T_odom_base: np.ndarray) -> tuple[float, float]:
    """What remains of the correction at the vehicle, metres and degrees."""
    pair = T_sent @ T_odom_base, T_found @ T_odom_base
    return se3.distance_m(*pair), se3.angle_deg(*pair)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.floats(-4.0, 4.0), st.sampled_from([1, 7, 100])
)
def test_a_correction_decays_exponentially_however_often_it_is_sent(
    x: float, y: float, yaw_deg: float, sends: int
) -> None:
    before = pose(10.0, 5.0, 30.0)
    found = before @ FAR_AWAY @ pose(x, y, yaw_deg) @ se3.inverse(FAR_AWAY)
    smooth = smoother()
    smooth.send(0, before, FAR_AWAY)
    whole_m, whole_deg = left(before, found, FAR_AWAY)
    for tick in range(1, sends + 1):
        sent = smooth.send(at_s(TAU_S * tick / sends), found, FAR_AWAY)
    metres, degrees = left(sent, found, FAR_AWAY)
    assert metres == pytest.approx(whole_m / np.e, abs=1e-6)
    assert degrees == pytest.approx(whole_deg / np.e, abs=1e-4)
    assert se3.is_rigid(sent, 1e-9)
    for tick in range(40):
        sent = smooth.send(at_s(TAU_S * (tick + 2)), found, FAR_AWAY)
    np.testing.assert_allclose(sent, found, atol=1e-5)


def test_the_correction_is_steady_at_the_vehicle_far_from_the_odometrys_origin() -> None:
    """A turn by 0.02 degrees moves a vehicle 1 km away by 0.4 m, on a straight line."""
    before, found = pose(0.0), pose(0.0, yaw_deg=0.02)
    smooth = smoother()
    smooth.send(0, before, FAR_AWAY)
    sent = smooth.send(at_s(0.2), found, FAR_AWAY)
    line = (found @ FAR_AWAY)[:3, 3] - FAR_AWAY[:3, 3]
    moved = (sent @ FAR_AWAY)[:3, 3] - FAR_AWAY[:3, 3]
    np.testing.assert_allclose(moved, line * -np.expm1(-0.2 / TAU_S), atol=1e-6)


@pytest.mark.parametrize("leap", [pose(1.2), pose(0.0, 0.0, 6.0)])
def test_a_leap_above_a_limit_is_made_at_once(leap: np.ndarray) -> None:
    smooth = smoother()
    smooth.send(0, np.eye(4), np.eye(4))
    np.testing.assert_allclose(smooth.send(at_s(0.05), leap, np.eye(4)), leap)


def test_limits_count_at_the_vehicle() -> None:
    """A turn of a fifth of a degree is harmless here, and a leap of 3.8 m a kilometre away."""
    found = pose(0.0, yaw_deg=0.2)
    near, far = smoother(), smoother()
    near.send(0, np.eye(4), np.eye(4))
    far.send(0, np.eye(4), FAR_AWAY)
    assert se3.angle_deg(near.send(at_s(0.05), found, np.eye(4)), found) > 0.1
    np.testing.assert_allclose(far.send(at_s(0.05), found, FAR_AWAY), found)


def test_off_first_again_and_back_in_time_it_is_the_transform_itself() -> None:
    first, second = pose(1.0), pose(1.5)
    off = smoother(0.0)
    off.send(0, first, np.eye(4))
    np.testing.assert_allclose(off.send(at_s(0.01), second, np.eye(4)), second)
    smooth = smoother()
    np.testing.assert_allclose(smooth.send(at_s(9.0), first, np.eye(4)), first)
    np.testing.assert_allclose(smooth.send(at_s(1.0), second, np.eye(4)), second)
    smooth.clear()
    np.testing.assert_allclose(smooth.send(at_s(1.1), first, np.eye(4)), first)
