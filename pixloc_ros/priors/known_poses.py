"""Everything that sensors and frames have revealed about the vehicle's pose."""

from __future__ import annotations

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.maps.datum import AnyDatum
from pixloc_ros.priors.accepted_pose import AcceptedPose
from pixloc_ros.priors.external_pose import ExternalPose
from pixloc_ros.priors.gates import seconds
from pixloc_ros.priors.gnss_prior import GnssPrior
from pixloc_ros.priors.odometry import OdometryBuffer
from pixloc_ros.priors.unconfirmed_pose import UnconfirmedPose


class KnownPoses:
    """At most one pose per source, and the odometry that carries them on."""

    def __init__(self, config: ConfigHolder, datum: AnyDatum | None) -> None:
        self.odometry = OdometryBuffer(config)
        self.accepted = AcceptedPose(config)
        self.external = ExternalPose(config)
        self.gnss = GnssPrior(config, datum)
        self.unconfirmed = UnconfirmedPose(config)

    def read_odometry(self) -> None:
        """Combine earlier poses with the odometry that came after them."""
        for pose in (self.accepted, self.unconfirmed, self.external, self.gnss):
            pose.read(self.odometry)

    def forget_poses(self) -> None:
        """Forget where the vehicle is; keep fixes and odometry."""
        for pose in (self.accepted, self.external, self.unconfirmed):
            pose.clear()

    def forget_all(self) -> None:
        """Forget fixes and odometry as well."""
        self.forget_poses()
        self.odometry.clear()
        self.gnss.clear()

    def begin_again(self, stamp_ns: int, max_gap_s: float) -> None:
        """Forget what is later than a stamp to which time went back.

        Some sensors may already be at the new time; their data stays.
        """
        self.accepted.clear()
        self.unconfirmed.take(None, "")
        for source in (self.odometry, self.external, self.gnss):
            newest_ns = source.stamp_ns
            if newest_ns is not None and seconds(newest_ns - stamp_ns) > max_gap_s:
                source.clear()
