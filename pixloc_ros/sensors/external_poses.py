"""Take poses from outside: of a GNSS receiver with attitude, of a person, of a service call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import PoseEvent
from pixloc_ros.sensors.vehicle_frames import VehicleFrames

NEAR_S = 1.0  # a pose this close to the newest data is always accepted


class ExternalPoses:
    """Gives poses in any frame to the tracker, in the map and at the time that they mean.

    newest_ns: returns the newest trusted stamp of any sensor; None before the first.
    """

    def __init__(
        self,
        config: ConfigHolder,
        tracker: PoseTracker,
        frames: VehicleFrames,
        newest_ns: Callable[[], int | None],
    ) -> None:
        self._holder = config
        self._tracker = tracker
        self._frames = frames
        self._newest_ns = newest_ns
        self._held: PoseEvent | None = None  # its stamp is odd; used if time moves there

    def take(self, event: PoseEvent) -> None:
        """Take a pose that a topic brings.

        Raises BadMessage for a frame that is not joined to the map, and for an odd stamp: such a
        pose is held back, unless a person sent it just now.
        """
        self._held = None if self._is_timely(event) or event.sent_just_now else event
        self._add(event)

    def take_from_caller(self, event: PoseEvent) -> None:
        """Take a pose that a caller states. Raises BadMessage if it cannot be used."""
        if fault := self._add(event):
            raise BadMessage(fault, f"the pose is refused: {fault.replace('_', ' ')}")

    def release(self) -> PoseEvent | None:
        """Return the pose that was held back, if time has moved to its stamp."""
        held = self._held
        if held is None or not self._is_timely(held):
            return None
        self._held = None
        return held

    def forget(self) -> None:
        """Forget the pose that is held back."""
        self._held = None

    def timed(self, event: PoseEvent) -> PoseEvent:
        """Return the pose with its stamp, 0 being replaced by the present time.

        A pose older than `priors.max_coast_s` is useless unless odometry carries it on. A click in
        Foxglove has the time of day even while a bag is played; it means now. Raises BadMessage for
        a stamp that seems to be of another clock.
        """
        newest_ns = self._newest_ns()
        if not event.stamp_ns:
            return replace(event, stamp_ns=event.received_ns if newest_ns is None else newest_ns)
        if self._is_timely(event):
            return event
        if event.sent_just_now and newest_ns is not None:
            return replace(event, stamp_ns=newest_ns)
        off_s = (event.stamp_ns - (newest_ns or 0)) * 1e-9
        side = "after" if off_s > 0 else "before"
        raise BadMessage(
            "odd_stamp",
            f"the pose is stamped {abs(off_s):.0f} s {side} the newest data: is it by another "
            "clock? Stamp 0 is now",
        )

    @property
    def _config(self) -> Config:
        return self._holder.current

    def _add(self, event: PoseEvent) -> str:
        """Give a pose to the tracker; return why it refused it, or ""."""
        event = self.timed(event)
        T_map_own = self._own_transform(event.stamp_ns)
        event = self._frames.pose_in_map(event, self._config.node, T_map_own)
        return self._tracker.add_pose(
            event.stamp_ns, event.T_frame_base, event.covariance, event.source
        )

    def _is_timely(self, event: PoseEvent) -> bool:
        """Return whether a pose is recent, or old but carried on by odometry."""
        newest_ns = self._newest_ns()
        if newest_ns is None or not event.stamp_ns:
            return True
        off_s = (event.stamp_ns - newest_ns) * 1e-9
        near = abs(off_s) <= max(self._config.priors.max_coast_s, NEAR_S)
        return near or (off_s < 0 and self._tracker.odometry.at(event.stamp_ns) is not None)

    def _own_transform(self, stamp_ns: int) -> Matrix | None:
        """Return the transform that the localizer itself publishes on /tf.

        It is map<-odom or map<-base (4, 4); None while there is no pose to publish.
        """
        predicted = self._tracker.predict(stamp_ns)
        if predicted is None:
            return None
        mode = self._config.node.tf_mode
        return {"map_odom": self._tracker.T_map_odom, "map_base": predicted[0]}.get(mode)
