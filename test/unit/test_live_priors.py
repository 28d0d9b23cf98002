"""Every parameter of the priors that can be set while the node works counts from then on."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.invented import alignment
from helpers.priors import CONFIG, SECOND, accepted, at_s, drive, fix_at, pose, street_map
from pixloc_ros.config import Config, PriorsConfig
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.priors.gnss import antenna_base
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.types import Estimate, Reason, Status

CHANGES = {
    "odometry_position_sigma_share": 0.2,
    "odometry_heading_sigma_deg_per_m": 1.0,
    "odometry_min_sigma_m": 0.5,
    "odometry_min_sigma_deg": 2.0,
    "odometry_max_gap_s": 0.5,
    "odometry_max_extrapolation_s": 0.05,
    "odometry_max_speed_mps": 8.0,
    "motion_sigma_mps": 10.0,
    "motion_sigma_degps": 20.0,
    "gnss_max_age_s": 0.5,
    "gnss_min_sigma_m": 3.0,
    "gnss_max_sigma_m": 10.0,
    "gnss_default_sigma_m": 7.0,
    "gnss_height_sigma_m": 2.0,
    "gnss_tilt_sigma_deg": 4.0,
    "gnss_heading_sigma_deg": 20.0,
    "jump_sigma": 1e5,
    "jump_frames": 1,
    "jump_window": 2,
    "max_coast_s": 2.0,
    "fallback_after_misses": 1,
    "last_pose_sigma_m": 9.0,
    "last_pose_sigma_deg": 9.0,
}
ELSEWHERE = {"gnss_antenna_m", "odometry_wait_s"}  # below, and in the tests of the live node


def test_no_live_parameter_is_forgotten() -> None:
    assert CHANGES.keys() | ELSEWHERE == PriorsConfig.model_fields.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_after_the_beginning_is_a_change_from_the_beginning(name: str) -> None:
    changed = Config(priors=CONFIG.model_copy(update={name: CHANGES[name]}))
    holder = ConfigHolder(Config())
    tracker = PoseTracker(holder, street_map())
    tracker.reset()  # whatever it keeps, it has by now
    holder.replace(changed)
    live, made_so, default = (
        story(each)
        for each in (
            tracker,
            PoseTracker(ConfigHolder(changed), street_map()),
            PoseTracker(ConfigHolder(Config()), street_map()),
        )
    )
    assert live == made_so
    assert live != default


def test_the_antenna_is_where_the_configuration_puts_it_now() -> None:
    config = CONFIG.model_copy(update={"gnss_antenna_m": (1.0, 0.0, 2.0)})
    found = antenna_base(config, lambda target, source: None, "base_link", "gps")
    assert found is not None and found.tolist() == [1.0, 0.0, 2.0]


def story(tracker: PoseTracker) -> list[object]:
    """What a tracker gives on a drive on which everything happens once."""
    log: list[object] = []

    def write(seconds: float) -> None:
        prior = tracker.prior(at_s(seconds))
        if prior is None:
            log.append(None)
        else:
            numbers = np.concatenate([prior.T_map_base[:3, 3], np.diag(prior.covariance)])
            log.append((prior.source, *np.round(numbers, 9)))

    tracker.remember(pose(50))
    write(0.0)  # a pose of an earlier run
    tracker.reset()

    fix_at(tracker, 0.0, (10, 0))
    write(0.1)  # a fix
    write(0.9)  # that grows old
    fix_at(tracker, 1.0, (20, 0), covariance_enu=np.eye(3) * 400.0)
    write(1.1)  # a vague one
    fix_at(tracker, 2.0, (30, 0), covariance_enu=None)
    write(2.1)  # one that does not know how vague it is
    log.append(sorted(tracker.rejected.items()))
    tracker.reset()

    drive(tracker, 2.0)
    log.append(tracker.update(accepted(at_s(1), pose(10))).reason)
    for seconds in (1.5, 2.1, 2.5, 5.0):
        write(seconds)  # by odometry, beyond it, and long after
    tracker.add_odometry(at_s(2.8), pose(28))
    write(2.8)  # across a gap
    log.append(sorted(tracker.rejected.items()))

    jumped = [accepted(at_s(1.5), pose(45)), missed(1.6), accepted(at_s(1.7), pose(47))]
    log.extend(tracker.update(estimate).reason for estimate in jumped)
    fix_at(tracker, 1.8, (18, 1))
    for tick in range(4):  # frames that fit nowhere
        tracker.update(missed(1.8 + tick / 100))
        write(1.81 + tick / 100)
    return log


def missed(seconds: float) -> Estimate:
    """A frame that was aligned, and refused."""
    here = alignment(np.eye(4), np.eye(4))
    stamp_ns = round(seconds * SECOND)
    return Estimate(Status.REJECTED, Reason.HIGH_COST, "", stamp_ns, alignment=here)
