"""The newest GNSS fix, completed by heading and height to a pose, as a prior."""

from __future__ import annotations

from collections import Counter

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.maps.datum import AnyDatum
from pixloc_ros.priors.gnss import Fix, GnssGate
from pixloc_ros.priors.heading import HeadingFromMotion
from pixloc_ros.priors.keyframe_lookup import KeyframeLookup
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.stamped_pose import StampedPose, carried
from pixloc_ros.types import PosePrior


class GnssPrior:
    """Remembers the newest accepted fix. `rejected` counts the others by reason."""

    def __init__(self, config: ConfigHolder, datum: AnyDatum | None) -> None:
        self._config = config
        self.gate = GnssGate(config, datum)
        self._heading = HeadingFromMotion(config)
        self._stale = 0
        self._fix: Fix | None = None

    @property
    def rejected(self) -> Counter[str]:
        """Number of refused fixes by reason."""
        return self.gate.rejected + Counter(gnss_stale=self._stale)

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the newest fix; None without one."""
        return self._fix.stamp_ns if self._fix else None

    def clear(self) -> None:
        """Forget all fixes."""
        self.gate.clear()
        self._heading.clear()
        self._fix = None

    def add(self, fix: Fix | None, odometry: OdometryBuffer) -> None:
        """Remember a fix that passed the gate; None: it did not."""
        if fix is not None:
            self._fix = fix
            self._heading.add(fix, odometry)

    def read(self, odometry: OdometryBuffer) -> None:
        """Use odometry that came after the fixes."""
        self._heading.read(odometry)

    def carried(
        self, stamp_ns: int, keyframes: KeyframeLookup, odometry: OdometryBuffer
    ) -> PosePrior | None:
        """Carry the pose at the newest fix on to a stamp; None without a fix, or if it is old."""
        fix = self._fix
        if fix is None:
            return None
        placed = keyframes.place(fix, self._heading.newest())
        pose = StampedPose(*placed, fix.stamp_ns, "gnss")
        if not pose.within(stamp_ns, self._config.current.priors.gnss_max_age_s):
            self._stale += 1
            return None
        return carried(pose.read(odometry), stamp_ns, odometry, self._config.current.priors)
