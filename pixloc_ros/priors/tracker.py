"""The believed pose over time: fed by sensors and accepted estimates, asked for priors."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import PriorsConfig
from pixloc_ros.priors import unconfirmed_pose
from pixloc_ros.priors.accepted_pose import AcceptedPose
from pixloc_ros.priors.external_pose import ExternalPose
from pixloc_ros.priors.fallback import PriorFallback
from pixloc_ros.priors.gates import StampFilter, seconds
from pixloc_ros.priors.gnss_prior import GnssPrior
from pixloc_ros.priors.jump_confirmation import JumpConfirmation
from pixloc_ros.priors.keyframe_lookup import KeyframeLookup, MapLike
from pixloc_ros.priors.odometry import OdometryBuffer, Twist
from pixloc_ros.priors.stamped_pose import StampedPose, is_vague
from pixloc_ros.priors.unconfirmed_pose import UnconfirmedPose
from pixloc_ros.types import Estimate, PosePrior, Reason

Matrix = NDArray[np.float64]


class PoseTracker:
    """Gives each frame its prior and turns accepted estimates into map->odom.

    A prior comes from, in this order: the last accepted pose while younger than `max_coast_s`; a
    stated pose (initialpose, GNSS pose) as young as that; a GNSS fix with height and tilt of the
    nearest keyframe, whose heading serves until motion tells it; an older accepted or stated pose,
    as long as odometry carries it; the last pose of an earlier run. What was found from a guess
    comes first until it is confirmed. With none of them, and now and then when they lead nowhere,
    there is no prior: the localizer searches the map.
    `T_base_cam` is the extrinsic of the live camera and may be set later. Not thread-safe.
    can_search: whether the localizer can do without a prior.
    """

    def __init__(
        self,
        config: PriorsConfig,
        map: MapLike,
        T_base_cam: Matrix | None = None,
        can_search: bool = False,
    ) -> None:
        self.T_base_cam = T_base_cam
        self._can_search = can_search
        self.generation = 0  # goes up when what was believed before is void
        self._config = config
        self._map = map
        self._odometry = OdometryBuffer(config)
        self._gnss = GnssPrior(config, map.datum)
        self._agreement = JumpConfirmation(config)
        self._refused: Counter[str] = Counter()
        self._accepted = AcceptedPose(config)
        self._stated = ExternalPose(config)
        self._guesses = UnconfirmedPose(config)
        self._doubt = PriorFallback(config)
        self._frame_ns: int | None = None
        gap_s = config.odometry_max_gap_s
        self._odometry_stamps: StampFilter[Matrix] = StampFilter(gap_s)
        self._frame_stamps: StampFilter[None] = StampFilter(gap_s)
        self._known_keyframes: KeyframeLookup | None = None

    @property
    def rejected(self) -> Counter[str]:
        """Refused inputs by reason, since the beginning."""
        stray = Counter(odometry_stamp_stray=self._odometry_stamps.stray)
        return self._refused + self._odometry.rejected + self._gnss.rejected + stray

    @property
    def T_map_odom(self) -> Matrix | None:
        """map<-odom as of the last accepted pose; None before it and when the odometry broke."""
        return self._accepted.T_map_odom(self._odometry)

    @property
    def accepted_stamp_ns(self) -> int | None:
        """Stamp of the last accepted pose."""
        return self._accepted.stamp_ns

    @property
    def odometry_stamp_ns(self) -> int | None:
        """Stamp of the newest odometry."""
        return self._odometry.stamp_ns

    @property
    def twist(self) -> Twist | None:
        """How the vehicle moves by odometry."""
        return self._odometry.twist()

    def motion(self, from_ns: int, to_ns: int) -> Matrix | None:
        """T_base_base (4, 4) by odometry, from the vehicle at to_ns to it at from_ns."""
        return self._odometry.motion(from_ns, to_ns)

    def reset(self) -> None:
        """Forget all poses, fixes and odometry; the counters stay."""
        self.forget_pose()
        self._odometry.clear()
        self._gnss.clear()
        self._odometry_stamps.clear()
        self._frame_stamps.clear()
        self._frame_ns = None

    def reconfigure(self, config: PriorsConfig) -> None:
        """Go on with other limits and sigmas; what is believed stays."""
        self._config = config
        self._known_keyframes = None
        self._odometry_stamps.max_gap_s = config.odometry_max_gap_s
        self._frame_stamps.max_gap_s = config.odometry_max_gap_s
        self._odometry.reconfigure(config)
        self._gnss.reconfigure(config)
        self._agreement.reconfigure(config)
        self._accepted.reconfigure(config)
        self._stated.reconfigure(config)
        self._guesses.reconfigure(config)
        self._doubt.reconfigure(config)

    def forget_pose(self) -> None:
        """Forget where the vehicle is, so that the next prior is a fix, or what is stated then."""
        self.generation += 1
        self._accepted.clear()
        self._stated.clear()
        self._guesses.clear()
        self._agreement.clear()
        self._doubt.clear()

    def remember(self, T_map_base: Matrix) -> None:
        """Take the pose (4, 4) at the end of an earlier run, to begin with if nothing else is."""
        self._guesses.remember(T_map_base)

    def add_odometry(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        """Take one odometry pose; stamps that go back (a bag that loops) reset everything."""
        for admitted in self._odometry_stamps.admit(stamp_ns, T_odom_base):
            self._take_odometry(*admitted)

    def _take_odometry(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        if self._went_back(self._odometry.stamp_ns, stamp_ns):
            self._refused["odometry_stamps_back"] += 1
            self._begin_again(stamp_ns)
        self._odometry.add(stamp_ns, T_odom_base)
        self._accepted.read(self._odometry)
        self._guesses.read(self._odometry)
        self._stated.read(self._odometry)
        self._gnss.read(self._odometry)

    def add_fix(
        self,
        stamp_ns: int,
        latitude_deg: float,
        longitude_deg: float,
        altitude_m: float,
        covariance_enu: Matrix | None,
        status: int,
        antenna_base: Matrix | None = None,
    ) -> None:
        """Take one GNSS fix (WGS-84) of an antenna, see GnssGate.accept."""
        position = latitude_deg, longitude_deg, altitude_m
        fix = self._gnss.gate.accept(stamp_ns, *position, covariance_enu, status, antenna_base)
        self._gnss.add(fix, self._odometry)

    def add_pose(self, stamp_ns: int, T_map_base: Matrix, covariance: Matrix, source: str) -> str:
        """Take a stated pose; `initialpose` comes from a person and overrules what is tracked.

        Zero variances of height, roll and pitch (RViz) or a vague heading mean that they are not
        known: they are borrowed from the nearest keyframe. Returns why it was refused, or "".
        """
        keyframes = self._keyframes()
        fault = self._stated.fault(T_map_base, covariance)
        if fault or keyframes is None:
            self._refused[f"{source}_{fault or 'without_extrinsics'}"] += 1
            return fault or "without_extrinsics"
        if source == "initialpose":
            self.forget_pose()
        T_map_base, covariance = keyframes.complete(T_map_base, covariance)
        stated = StampedPose(T_map_base, covariance, stamp_ns, source)
        self._stated.take(stated.read(self._odometry))
        return ""

    def ready(self, stamp_ns: int) -> bool:
        """Whether odometry has reached the stamp, or there is none at all to wait for."""
        newest_ns = self._odometry.stamp_ns
        return newest_ns is None or newest_ns >= stamp_ns

    def prior(self, stamp_ns: int) -> PosePrior | None:
        """The best guess at the stamp of a frame, or None when nothing is known."""
        if not self._follow(stamp_ns):
            return None
        doubtful = self._doubt.due
        past = doubtful and self._stated_before()
        old_fix = self._can_search and self._doubt.outdates(self._gnss.stamp_ns)
        if doubtful:
            self._guesses.forget()
        return (
            self._guesses.found(stamp_ns, self._odometry)
            or (None if doubtful else self._accepted.carried(stamp_ns, self._odometry))
            or (None if past else self._stated.carried(stamp_ns, self._odometry))
            or (None if old_fix else self._from_fix(stamp_ns))
            or (None if doubtful and self._can_search else self._from_long_ago(stamp_ns))
        )

    def _follow(self, stamp_ns: int) -> bool:
        """Notice where time went back; False where one frame alone says so."""
        admitted = self._frame_stamps.admit(stamp_ns, None)
        for frame_ns, _ in admitted:
            if self._went_back(self._frame_ns, frame_ns):
                self._refused["frame_stamps_back"] += 1
                self._begin_again(frame_ns)
            self._frame_ns = frame_ns
        astray = not admitted and self._went_back(self._frame_ns, stamp_ns)
        self._refused["frame_stamp_stray"] += astray
        return not astray

    def predict(self, stamp_ns: int) -> tuple[Matrix, Matrix] | None:
        """T_map_base (4, 4) and covariance (6, 6) carried from the last accepted pose.

        None without one, or when it is older than `max_coast_s`.
        """
        prior = self._accepted.carried(stamp_ns, self._odometry)
        return (prior.T_map_base, prior.covariance) if prior else None

    def update(self, estimate: Estimate) -> Estimate:
        """Take the localizer's verdict: an accepted pose moves map->odom, others change nothing.

        Returns the verdict to publish: a jump that no other frame confirms yet is "unconfirmed".
        """
        self._guesses.find(None, "")
        if not estimate.ok or estimate.T_map_base is None or estimate.covariance is None:
            self._miss(estimate)
            return estimate
        found = StampedPose(estimate.T_map_base, estimate.covariance, estimate.stamp_ns, "odometry")
        found = found.read(self._odometry)
        expected = self._accepted.expected(estimate.stamp_ns, self._odometry)
        guess = unconfirmed_pose.source_of(estimate)
        if objection := self._agreement.objection(found, expected, self._odometry, guess):
            self._guesses.find(found, guess)
            return estimate.rejected(Reason.UNCONFIRMED, objection)
        self._accepted.take(found)
        self._guesses.clear()
        self._doubt.clear()
        return estimate

    def _miss(self, estimate: Estimate) -> None:
        self._agreement.miss()
        if estimate.alignment is not None:  # it was there to be seen, and did not fit
            self._doubt.miss(estimate.stamp_ns)

    def _begin_again(self, stamp_ns: int) -> None:
        """Time went back to this stamp: forget what is later. Some sensors may be there already."""
        self.generation += 1
        self._agreement.clear()
        self._accepted.clear()
        self._guesses.find(None, "")
        self._doubt.clear()
        self._frame_ns = None
        for source in (self._odometry, self._stated, self._gnss):
            if self._went_back(source.stamp_ns, stamp_ns):
                source.clear()

    def _stated_before(self) -> bool:
        """Whether the last accepted pose is newer than what was stated."""
        stated_ns, accepted_ns = self._stated.stamp_ns, self._accepted.stamp_ns
        return stated_ns is not None and accepted_ns is not None and stated_ns <= accepted_ns

    def _from_long_ago(self, stamp_ns: int) -> PosePrior | None:
        """What odometry carries, as long as that tells the place; or the pose of an earlier run."""
        for pose in (self._accepted.expected, self._stated.by_odometry):
            carried = pose(stamp_ns, self._odometry)
            if carried is not None and not is_vague(carried.covariance, self._config):
                return carried
        return self._guesses.remembered(stamp_ns)

    def _from_fix(self, stamp_ns: int) -> PosePrior | None:
        keyframes = self._keyframes()
        if keyframes is None:
            return None
        return self._gnss.carried(stamp_ns, keyframes, self._odometry)

    def _keyframes(self) -> KeyframeLookup | None:
        T_base_cam = self._map.T_base_cam
        T_base_cam = self.T_base_cam if T_base_cam is None else T_base_cam
        if T_base_cam is None or not len(self._map.keyframe_T_map_cam):
            return None
        known = self._known_keyframes
        if known is None or not np.array_equal(known.T_base_cam, T_base_cam):
            known = KeyframeLookup(self._map.keyframe_T_map_cam, T_base_cam, self._config)
        self._known_keyframes = known
        return known

    def _went_back(self, newest_ns: int | None, stamp_ns: int) -> bool:
        """Whether time went back from a stamp, if there was one, to this one."""
        gap_s = self._config.odometry_max_gap_s
        return newest_ns is not None and seconds(newest_ns - stamp_ns) > gap_s
