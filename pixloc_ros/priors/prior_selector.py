"""Choose which of the known poses becomes the prior of a frame."""

from __future__ import annotations

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.priors.fallback import PriorFallback
from pixloc_ros.priors.keyframe_lookup import VehicleKeyframes
from pixloc_ros.priors.known_poses import KnownPoses
from pixloc_ros.priors.stamped_pose import is_vague
from pixloc_ros.types import PosePrior


class PriorSelector:
    """Tries the sources of poses in a fixed order.

    1. the pose that the last frame found and no other has confirmed yet
    2. the last accepted pose while younger than `max_coast_s`
    3. an external pose (initialpose, GNSS pose), as young as that
    4. a GNSS fix, completed by the nearest keyframe's height, tilt and (until known) heading
    5. an older accepted or external pose, as long as odometry carries it on
    6. the last pose of an earlier run

    If there is none, and from time to time if they keep failing, a frame gets no prior: the
    localizer searches the map.

    can_search: whether the localizer can do without a prior.
    """

    def __init__(
        self,
        config: ConfigHolder,
        known: KnownPoses,
        keyframes: VehicleKeyframes,
        fallback: PriorFallback,
        can_search: bool,
    ) -> None:
        self._config = config
        self._known = known
        self._keyframes = keyframes
        self._fallback = fallback
        self._can_search = can_search

    def prior(self, stamp_ns: int) -> PosePrior | None:
        """Return the best prior at a stamp; None if nothing is known."""
        known, odometry, fall_back = self._known, self._known.odometry, self._fallback.due
        if fall_back:
            known.unconfirmed.forget_remembered()
        outdated = fall_back and self._external_is_outdated()
        old_fix = self._can_search and self._fallback.outdates(known.gnss.stamp_ns)
        return (
            known.unconfirmed.found(stamp_ns, odometry)
            or (None if fall_back else known.accepted.carried(stamp_ns, odometry))
            or (None if outdated else known.external.carried(stamp_ns, odometry))
            or (None if old_fix else self._from_fix(stamp_ns))
            or (None if fall_back and self._can_search else self._from_long_ago(stamp_ns))
        )

    def _external_is_outdated(self) -> bool:
        """Return whether the last accepted pose is newer than the external one."""
        external_ns = self._known.external.stamp_ns
        accepted_ns = self._known.accepted.stamp_ns
        return external_ns is not None and accepted_ns is not None and external_ns <= accepted_ns

    def _from_fix(self, stamp_ns: int) -> PosePrior | None:
        keyframes = self._keyframes.lookup()
        if keyframes is None:
            return None
        return self._known.gnss.carried(stamp_ns, keyframes, self._known.odometry)

    def _from_long_ago(self, stamp_ns: int) -> PosePrior | None:
        """Return an old pose if odometry still carries it usefully; else that of an earlier run."""
        known, config = self._known, self._config.current.priors
        for pose in (known.accepted.expected, known.external.by_odometry):
            carried = pose(stamp_ns, known.odometry)
            if carried is not None and not is_vague(carried.covariance, config):
                return carried
        return known.unconfirmed.remembered(stamp_ns)
