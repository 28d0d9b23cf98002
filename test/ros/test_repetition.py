"""On a street whose facades repeat exactly no wrong pose is told, wherever a search begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from helpers.domains import own_domain
from helpers.messages import up_to_frame, without
from helpers.street import write_street
from pixloc_ros.config import from_flat
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.sensors import decoding
from pixloc_ros.types import PosePrior, Reason
from research.repeating_street import PERIOD_M, RepeatingStreet

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope="module", params=[True, False], ids=["same ground", "own ground"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A street below a folder, and whether its ground repeats, too."""
    options = RepeatingStreet(
        length_m=18.0, width=320, height=192, workers=1, rate_hz=5.0, same_ground=request.param
    )
    return write_street(tmp_path_factory.mktemp("repeating"), options), request.param


@pytest.fixture(scope="module")
def domain(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    from helpers.live import running_node

    log = tmp_path_factory.mktemp("node") / "log.txt"
    parameters = {"map": place[0] / "map", "node.diagnostics_rate_hz": 10.0, "threads": 1}
    with own_domain() as domain, running_node(log, domain, **parameters):
        yield domain


@pytest.fixture
def rig(domain: int) -> Iterator[Any]:
    from helpers.live import fresh_rig

    with fresh_rig(domain) as rig:
        yield rig


def state_a_pose(rig: Any, T_map_base: np.ndarray, sigma_m: float, stamp_ns: int) -> None:
    from pixloc_ros.ros import conversions

    covariance = diagonal(sigma_m, 2.0)
    rig.send("/initialpose", conversions.pose_message(T_map_base, covariance, stamp_ns, "map"))


@pytest.fixture(scope="module")
def localizer(place: Any) -> Localizer:
    return Localizer(from_flat({"map": str(place[0] / "map"), "threads": 1}))


@pytest.mark.parametrize("periods", [0, 1])
def test_a_prior_that_claims_to_be_sure(place: Any, localizer: Localizer, periods: int) -> None:
    """The ground contradicts one that is a period off; where that repeats, too, the level tells."""
    folder, same_ground = place
    drive = read_posed_images(folder / "data/drive/meta.json", folder / "data/drive/images")
    reasons = set()
    for frame, T_true in posed_frames(drive, [3, 5]):
        T_stated = T_true.copy()
        T_stated[0, 3] += periods * PERIOD_M
        prior = PosePrior(T_stated, diagonal(0.3, 1.0), "initialpose", frame.stamp_ns)
        estimate = localizer.localize(frame, prior)
        reasons.add(estimate.reason)
        if estimate.ok:
            assert se3.distance_m(estimate.T_map_base, T_stated) < 0.3
            told = "only the initialpose prior tells them apart" in estimate.message
            assert told is same_ground
            assert (estimate.protection_level.error_m > PERIOD_M - 0.1) is same_ground
        elif estimate.reason is Reason.FAR_FROM_PRIOR:
            assert se3.distance_m(estimate.candidate_T_map_base, T_true) < 0.1
    contradicted = periods == 1 and not same_ground
    assert (Reason.FAR_FROM_PRIOR if contradicted else Reason.OK) in reasons
    assert not (contradicted and Reason.OK in reasons)


def test_the_protection_level_covers_a_place_that_fits_nearly_as_well(place: Any) -> None:
    """A vague prior allows several periods, and the best of them need not be the true one."""
    folder, same_ground = place
    settings = {"map": str(folder / "map"), "threads": 1, "acceptance.min_runner_up_loss": 0.0}
    localizer = Localizer(from_flat(settings))
    drive = read_posed_images(folder / "data/drive/meta.json", folder / "data/drive/images")
    for frame, T_true in posed_frames(drive, [3, 5]):
        T_stated = T_true @ se3.make(np.eye(3), [-2.0, 0.0, 0.0])
        prior = PosePrior(T_stated, diagonal(3.0, 1.0), "initialpose", frame.stamp_ns)
        estimate = localizer.localize(frame, prior)
        assert estimate.ok
        assert se3.distance_m(estimate.T_map_base, T_true) <= estimate.protection_level.error_m
        if same_ground:
            assert estimate.protection_level.error_m > PERIOD_M - 0.1
            assert "explains the image about as well" in estimate.message


def test_a_street_that_repeats_is_followed_farther_than_is_compared(place: Any) -> None:
    """Two periods off, and only one is compared: what looks the same there leads to the truth."""
    folder, same_ground = place
    settings = {"map": str(folder / "map"), "threads": 1, "hypotheses.beyond_prior_m": 8.0}
    localizer = Localizer(from_flat(settings))
    drive = read_posed_images(folder / "data/drive/meta.json", folder / "data/drive/images")
    reasons, levels_m = set(), [0.0]
    for frame, T_true in posed_frames(drive, [1, 2, 3]):
        T_stated = T_true @ se3.make(np.eye(3), [2 * PERIOD_M, 0.0, 0.0])
        prior = PosePrior(T_stated, diagonal(0.3, 1.0), "initialpose", frame.stamp_ns)
        estimate = localizer.localize(frame, prior)
        reasons.add(estimate.reason)
        if estimate.ok:
            levels_m.append(estimate.protection_level.error_m)
        elif estimate.reason is Reason.FAR_FROM_PRIOR:
            assert se3.distance_m(estimate.candidate_T_map_base, T_true) < 0.1
    if same_ground:
        assert max(levels_m) > 2 * PERIOD_M - 0.1
    else:
        assert Reason.FAR_FROM_PRIOR in reasons and Reason.OK not in reasons


def test_a_contradicted_pose_is_left_for_the_place_that_the_images_agree_on(
    place: Any, localizer: Localizer
) -> None:
    """The second frame confirms where the first one said that the vehicle is, the third is there.

    Where the ground repeats as well, the stated pose is all that tells, and is kept.
    """
    folder, same_ground = place
    drive = read_posed_images(folder / "data/drive/meta.json", folder / "data/drive/images")
    tracker = PoseTracker(localizer.holder, localizer.map)
    tracker.keyframes.T_base_cam = drive.T_base_cam
    estimates, sources = [], []
    for frame, T_true in posed_frames(drive, [3, 4, 5]):
        tracker.add_odometry(frame.stamp_ns, T_true)  # it is that of the drive, without an error
        if not estimates:
            T_stated = T_true @ se3.make(np.eye(3), [PERIOD_M, 0.0, 0.0])
            stated = (T_stated, diagonal(0.3, 1.0), "initialpose")
            assert tracker.add_pose(frame.stamp_ns, *stated) == ""
        prior = tracker.prior(frame.stamp_ns)
        sources.append(prior.source)
        estimates.append(tracker.update(localizer.localize(frame, prior)))
    reasons = [estimate.reason for estimate in estimates]
    if same_ground:
        assert reasons == [Reason.OK] * 3
        return
    assert reasons == [Reason.FAR_FROM_PRIOR, Reason.UNCONFIRMED, Reason.OK]
    assert sources == ["initialpose", "contradiction", "contradiction"]
    assert se3.distance_m(estimates[-1].T_map_base, T_true) < 0.1


@pytest.mark.parametrize(("periods", "sigma_m"), [(-1, 3.0), (None, 0.0), (0, 0.2)])
def test_a_prior_some_periods_off(
    place: Any, rig: Any, periods: int | None, sigma_m: float
) -> None:
    """periods None: no prior at all, the map is searched."""
    from helpers.live import Bag

    folder, same_ground = place
    truth = read_tum(folder / "bag.truth.txt")
    T_true = dict(zip(truth.stamps_ns.tolist(), truth.T_map_base, strict=True))
    messages = without(Bag(folder / "bag"), "/gnss/fix")
    rig.play(up_to_frame(messages, 0))
    if periods is not None:
        T_stated = truth.T_map_base[0].copy()
        T_stated[0, 3] += periods * PERIOD_M
        state_a_pose(rig, T_stated, sigma_m, int(truth.stamps_ns[0]))
    rig.until(rig.arrived, "the pose")
    verdicts = rig.play(messages[len(up_to_frame(messages, 0)) : len(up_to_frame(messages, 4))])
    rig.until(lambda: len(rig.poses) == sum(v.localized for v in verdicts), "all poses")
    for pose in rig.poses:
        T_map_base = decoding.pose(pose.pose.pose)
        assert se3.distance_m(T_map_base, T_true[decoding.stamp_ns(pose.header)]) < 0.3
    if sigma_m == 0.2 or not same_ground:  # something tells the periods apart
        assert verdicts[-1].localized, [v.message for v in verdicts]
        farthest_m = max((v.ambiguity_m for v in verdicts if v.ambiguity_m > 0), default=0.0)
        if sigma_m == 0.2:  # only the prior tells them apart, where the ground does not
            assert (farthest_m > PERIOD_M - 0.1) is same_ground
    else:
        assert not rig.poses
        assert "ambiguous" in {v.reason for v in verdicts}
