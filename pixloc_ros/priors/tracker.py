"""Track the pose over time: sensors and accepted estimates in, priors and map->odom out."""

from __future__ import annotations

from collections import Counter

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.priors import unconfirmed_pose
from pixloc_ros.priors.fallback import PriorFallback
from pixloc_ros.priors.gnss import ReceivedFix
from pixloc_ros.priors.jump_confirmation import JumpConfirmation
from pixloc_ros.priors.keyframe_lookup import MapLike, VehicleKeyframes
from pixloc_ros.priors.known_poses import KnownPoses
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.prior_selector import PriorSelector
from pixloc_ros.priors.stamped_pose import StampedPose
from pixloc_ros.types import Estimate, Matrix, PosePrior, Reason


class PoseTracker:
    """Gives each frame its prior and turns accepted estimates into map->odom.

    KnownPoses holds what it knows, PriorSelector chooses the prior among that, and JumpConfirmation
    decides whether an estimate is accepted. Not thread-safe. Stamps are not checked: the session's
    StampClock holds back odd ones.

    can_search: whether the localizer can do without a prior.
    """

    def __init__(self, config: ConfigHolder, map: MapLike, can_search: bool = False) -> None:
        self.generation = 0  # increases when what was known before becomes invalid
        self.keyframes = VehicleKeyframes(map, config)
        self._config = config
        self._known = known = KnownPoses(config, map.datum)
        self._fallback = PriorFallback(config)
        self._jumps = JumpConfirmation(config)
        self._refused: Counter[str] = Counter()
        self._selector = PriorSelector(config, known, self.keyframes, self._fallback, can_search)

    @property
    def rejected(self) -> Counter[str]:
        """Refused inputs by reason, since the start."""
        return self._refused + self._known.odometry.rejected + self._known.gnss.rejected

    @property
    def odometry(self) -> OdometryBuffer:
        """The odometry so far."""
        return self._known.odometry

    @property
    def accepted_stamp_ns(self) -> int | None:
        """Stamp of the last accepted pose."""
        return self._known.accepted.stamp_ns

    @property
    def T_map_odom(self) -> Matrix | None:
        """map<-odom at the last accepted pose; None before it and after a break in the odometry."""
        return self._known.accepted.T_map_odom(self._known.odometry)

    def add_odometry(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        """Take one odometry pose."""
        self._known.odometry.add(stamp_ns, T_odom_base)
        self._known.read_odometry()

    def add_fix(self, received: ReceivedFix, antenna_base: Matrix | None = None) -> None:
        """Take one GNSS fix of an antenna, see GnssGate.accept."""
        gnss = self._known.gnss
        gnss.add(gnss.gate.accept(received, antenna_base), self._known.odometry)

    def add_pose(self, stamp_ns: int, T_map_base: Matrix, covariance: Matrix, source: str) -> str:
        """Take an external pose; `initialpose` comes from a person and overrules the tracked pose.

        Zero variances of height, roll and pitch (RViz) or a vague heading mean unknown: these
        values are taken from the nearest keyframe. Returns why the pose was refused, or "".
        """
        keyframes = self.keyframes.lookup()
        fault = self._known.external.fault(T_map_base, covariance)
        if fault or keyframes is None:
            self._refused[f"{source}_{fault or 'without_extrinsics'}"] += 1
            return fault or "without_extrinsics"
        if source == "initialpose":
            self.forget_pose()
        T_map_base, covariance = keyframes.complete(T_map_base, covariance)
        stated = StampedPose(T_map_base, covariance, stamp_ns, source)
        self._known.external.take(stated.read(self._known.odometry))
        return ""

    def take_over_odometry(self, other: PoseTracker) -> None:
        """Take over what another tracker knows about the vehicle, but not about the map."""
        self._known.odometry = other.odometry
        self.keyframes.T_base_cam = other.keyframes.T_base_cam

    def remember(self, T_map_base: Matrix) -> None:
        """Take the pose (4, 4) at the end of an earlier run, for use if nothing else is known."""
        self._known.unconfirmed.remember(T_map_base)

    def prior(self, stamp_ns: int) -> PosePrior | None:
        """Return the prior of a frame; None if nothing is known."""
        return self._selector.prior(stamp_ns)

    def predict(self, stamp_ns: int) -> tuple[Matrix, Matrix] | None:
        """Carry the last accepted pose on: T_map_base (4, 4) and covariance (6, 6).

        None without one, or if it is older than `max_coast_s`.
        """
        prior = self._known.accepted.carried(stamp_ns, self._known.odometry)
        return (prior.T_map_base, prior.covariance) if prior else None

    def update(self, estimate: Estimate) -> Estimate:
        """Take the localizer's verdict: an accepted pose moves map->odom, others change nothing.

        Returns the verdict to publish: a jump that no other frame has confirmed yet is
        "unconfirmed".
        """
        known = self._known
        known.unconfirmed.take(None, "")
        if not estimate.ok or estimate.T_map_base is None or estimate.covariance is None:
            self._miss(estimate)
            limit = self._config.current.acceptance.max_wrong_probability
            known.unconfirmed.take_contradiction(estimate, limit)
            known.unconfirmed.read(known.odometry)
            return estimate
        found = StampedPose(estimate.T_map_base, estimate.covariance, estimate.stamp_ns, "odometry")
        found = found.read(known.odometry)
        expected = known.accepted.expected(estimate.stamp_ns, known.odometry)
        unmeasured = unconfirmed_pose.source_of(estimate)
        if objection := self._jumps.objection(found, expected, known.odometry, unmeasured):
            known.unconfirmed.take(found, unmeasured)
            return estimate.rejected(Reason.UNCONFIRMED, objection)
        known.accepted.take(found)
        known.accepted.comparison.take(estimate)
        known.unconfirmed.clear()
        self._fallback.clear()
        return estimate

    def forget_pose(self) -> None:
        """Forget where the vehicle is: the next prior is a fix, or a pose stated from now on."""
        self.generation += 1
        self._known.forget_poses()
        self._jumps.clear()
        self._fallback.clear()

    def reset(self) -> None:
        """Forget all poses, fixes and odometry; the counters stay."""
        self.forget_pose()
        self._known.forget_all()

    def begin_again(self, stamp_ns: int) -> None:
        """Forget what is later than a stamp to which time went back."""
        self.generation += 1
        self._jumps.clear()
        self._fallback.clear()
        self._known.begin_again(stamp_ns, self._config.current.priors.odometry_max_gap_s)

    def _miss(self, estimate: Estimate) -> None:
        self._jumps.miss()
        if estimate.alignment is not None:  # it was aligned but did not fit
            self._fallback.miss(estimate.stamp_ns)
            if self._fallback.due:  # lost: compare the next place again
                self._known.accepted.comparison.clear()
