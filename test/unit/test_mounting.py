"""Mounting and time offset of a camera from a drive of which the truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files.recorded_drive import RecordedOdometry
from pixloc_ros.priors import mounting_record
from pixloc_ros.priors.mounting import (
    LocalizedDrive,
    corrected,
    disagreement,
    estimate_mounting,
)
from pixloc_ros.priors.mounting_record import MountingRecord
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.types import Estimate, Reason, Status

pytestmark = pytest.mark.slow

POSE_SIGMAS = np.array([0.01, 0.01, 0.01, *np.deg2rad([0.03, 0.03, 0.03])])
T_BASE_CAM = se3.make(se3.base_from_optical()[:3, :3], [1.5, 0.2, 1.2])
WRONG = np.array([0.05, -0.05, 0.0, *np.deg2rad([1.0, -1.0, 1.0]), 0.02, 0.009])


def path(t_s: Matrix, turning: float, ramps_deg: float) -> Matrix:
    """T_map_base (N, 4, 4): 10 m/s with gas and brakes, through bends and over ramps."""
    dense_s = np.arange(0.0, t_s.max() + 0.1, 0.002)
    speed = 10.0 + turning * 4.0 * np.sin(0.7 * dense_s)
    yaw = turning * 1.2 * np.sin(0.3 * dense_s)
    pitch = np.deg2rad(ramps_deg) * np.sin(0.9 * dense_s)
    R = Rotation.from_euler("ZY", np.stack([yaw, pitch], 1)).as_matrix()
    xyz = np.cumsum(0.002 * speed[:, None] * R[:, :, 0], axis=0)
    at = np.round(t_s / 0.002).astype(int)
    T = np.tile(np.eye(4), (len(t_s), 1, 1))
    T[:, :3, :3], T[:, :3, 3] = R[at], xyz[at]
    return T


def drive(
    seconds: float = 25.0,
    turning: float = 1.0,
    ramps_deg: float = 2.0,
    seed: int = 0,
    wrong: Matrix = WRONG,
) -> tuple[LocalizedDrive, RecordedOdometry]:
    """What a localizer with a wrong mounting and clock finds, and odometry that drifts."""
    rng = np.random.default_rng(seed)
    odom_s, frame_s = np.arange(0.0, seconds, 0.02), np.arange(0.5, seconds - 0.5, 0.1)
    T_odom = path(odom_s, turning, ramps_deg)
    steps = se3.inverse(T_odom[:-1]) @ T_odom[1:]
    steps[:, :3, 3] /= 1.0 + wrong[7]
    steps[:, 0, 3] += rng.normal(0.0, 0.02 * np.sqrt(0.02), len(steps))
    turn = rng.normal(0.0, np.deg2rad(0.03) * np.sqrt(0.02), len(steps))
    steps[:, :3, :3] @= Rotation.from_euler("z", turn[:, None]).as_matrix()
    for i, step in enumerate(steps):
        T_odom[i + 1] = T_odom[i] @ step
    noise = rng.normal(size=(len(frame_s), 6)) * POSE_SIGMAS
    off = np.tile(np.eye(4), (len(frame_s), 1, 1))
    off[:, :3, 3] = noise[:, :3]
    off[:, :3, :3] = Rotation.from_rotvec(noise[:, 3:]).as_matrix()
    T_map_cam = path(frame_s + wrong[6], turning, ramps_deg) @ off @ corrected(T_BASE_CAM, wrong)
    T_map_base = T_map_cam @ se3.inverse(T_BASE_CAM)
    covariance = np.tile(np.diag(POSE_SIGMAS**2), (len(frame_s), 1, 1))
    stamps_ns, odom_ns = (np.round(t * 1e9).astype(np.int64) for t in (frame_s, odom_s))
    odometry = RecordedOdometry(odom_ns, T_odom, np.zeros(len(odom_ns), np.int64))
    return LocalizedDrive(stamps_ns, T_map_base, covariance, T_BASE_CAM), odometry


@pytest.mark.parametrize("seed", [0, 1])
def test_a_wrong_mounting_and_clock_are_found_within_their_sigmas(seed: int) -> None:
    localized, odometry = drive(seed=seed)
    found = estimate_mounting(localized, odometry)
    assert found.determined[[0, 1, 3, 4, 5, 6, 7]].all()
    off = np.abs(found.values - WRONG)[found.determined]
    sigmas = found.sigmas[found.determined]
    assert (off < 4.0 * sigmas).all(), off / sigmas
    assert found.sigmas[6] < 0.002 and np.rad2deg(found.sigmas[[4, 5]]).max() < 0.02
    said = found.complaint()
    assert "ms in its stamps" in said and "deg in pitch" in said and "deg in yaw" in said
    before, after = (disagreement(localized, odometry, v) for v in (0 * WRONG, found.values))
    assert after[0] < 0.7 * before[0]


def test_what_a_drive_does_not_tell_stays_as_it_was() -> None:
    localized, odometry = drive(turning=0.0, ramps_deg=0.0)
    found = estimate_mounting(localized, odometry)
    told = dict(
        zip(("x", "y", "z", "roll", "pitch", "yaw", "offset"), found.determined, strict=False)
    )
    assert not any(told[name] for name in ("x", "y", "z", "roll", "offset"))
    assert told["pitch"] and told["yaw"]
    assert (found.values[~found.determined] == 0.0).all()
    np.testing.assert_allclose(found.values[[4, 5]], WRONG[[4, 5]], atol=np.deg2rad(0.1))


def test_wrong_poses_do_not_count() -> None:
    localized, odometry = drive()
    localized.T_map_base[[50, 120, 180], :3, 3] += [1.0, -2.0, 0.5]
    found = estimate_mounting(localized, odometry)
    assert found.outliers >= 6  # each ends one step and begins the next
    off = np.abs(found.values - WRONG)[found.determined]
    assert (off < 4.0 * found.sigmas[found.determined]).all()


def test_a_drive_that_is_too_short_is_refused() -> None:
    localized, odometry = drive(seconds=2.5)
    with pytest.raises(DataError, match=r"14 pairs of localized frames .* take a longer drive"):
        estimate_mounting(localized, odometry)


# --- in bounded memory, while driving -------------------------------------------------------------


def record_of(
    localized: LocalizedDrive, odometry: RecordedOdometry, later_s: float = 0.0
) -> MountingRecord:
    """What is kept of a drive that comes bit by bit, all of it some seconds later."""
    record, buffer = MountingRecord(), OdometryBuffer(ConfigHolder(Config()))
    feed(record, buffer, localized, odometry, later_s)
    return record


def feed(
    record: MountingRecord,
    buffer: OdometryBuffer,
    localized: LocalizedDrive,
    odometry: RecordedOdometry,
    later_s: float = 0.0,
) -> None:
    later_ns, told = round(later_s * 1e9), 0
    for i, stamp_ns in enumerate(localized.stamps_ns):
        while told < len(odometry.stamps_ns) and odometry.stamps_ns[told] <= stamp_ns:
            buffer.add(int(odometry.stamps_ns[told]) + later_ns, odometry.T_odom_base[told])
            told += 1
        poses = {"T_map_base": localized.T_map_base[i], "covariance": localized.covariance[i]}
        found = Estimate(Status.OK, Reason.OK, "", int(stamp_ns) + later_ns, str(i), **poses)
        record.take(found, localized.T_base_cam, buffer)


def test_a_drive_that_comes_bit_by_bit_tells_what_is_wrong() -> None:
    told = record_of(*drive(seconds=10.0)).copy().complaint()
    for words in ("+1.0", "deg in roll", "-1.0", "deg in pitch", "deg in yaw", "ms in its stamps"):
        assert words in (told or ""), told


def test_a_good_mounting_is_not_complained_of() -> None:
    assert record_of(*drive(seconds=10.0, wrong=0.0 * WRONG)).complaint() == ""


def test_only_the_last_part_of_a_long_drive_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting_record, "MAX_FRAMES", 60)
    monkeypatch.setattr(mounting_record, "MAX_READINGS", 400)
    localized, odometry = drive(seconds=10.0)
    record = record_of(localized, odometry)
    assert record.frames_taken == len(localized.stamps_ns)
    assert len(record._frames) == 60 and len(record._readings) <= 400
    assert "deg in pitch" in (record.complaint() or "")


def test_a_standstill_adds_nothing_and_another_mounting_begins_anew() -> None:
    localized, odometry = drive(seconds=4.0)
    record = record_of(localized, odometry)
    assert "deg in pitch" in (record.complaint() or "")
    taken = record.frames_taken
    buffer = OdometryBuffer(ConfigHolder(Config()))
    still = replace(localized, T_map_base=localized.T_map_base[[-1] * len(localized.stamps_ns)])
    feed(record, buffer, still, odometry, later_s=10.0)
    assert record.frames_taken == taken
    other = replace(localized, T_base_cam=se3.make(np.eye(3), [1.0, 0.0, 0.0]))
    feed(record, buffer, other.part(slice(5)), odometry, later_s=20.0)
    assert record.complaint() is None, "too little to tell"


def test_time_that_goes_back_begins_anew() -> None:
    localized, odometry = drive(seconds=4.0)
    record, buffer = MountingRecord(), OdometryBuffer(ConfigHolder(Config()))
    feed(record, buffer, localized, odometry, later_s=100.0)
    buffer.clear()
    feed(record, buffer, localized, odometry)
    assert "deg in pitch" in (record.complaint() or "")
