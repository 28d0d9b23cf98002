"""Process each event as it comes: quickly, before any image is decoded or localized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gnss import antenna_base
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.sensors.calibrations import Calibrations
from pixloc_ros.sensors.camera_synchronizer import CameraSynchronizer
from pixloc_ros.sensors.counters import Counters
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    Event,
    FixEvent,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    RefusedMessage,
    Size,
    StaticTransformsEvent,
    TransformsEvent,
)
from pixloc_ros.sensors.external_poses import ExternalPoses
from pixloc_ros.sensors.frame_assembler import FrameAssembler
from pixloc_ros.sensors.image_group import ImageGroup
from pixloc_ros.sensors.stamp_clock import Admission, Stamp, StampClock
from pixloc_ros.sensors.vehicle_frames import VehicleFrames

Action = Callable[[], None]  # processes a message once its stamp is confirmed


class EventIntake:
    """Checks stamps and frames of events, feeds the tracker, and groups images by moment."""

    def __init__(self, config: ConfigHolder, tracker: PoseTracker, counters: Counters) -> None:
        self.enabled = True  # whether images are processed
        self.epoch = 0  # how often time went back
        self._holder = config
        self._tracker = tracker
        self._counters = counters
        self._clock: StampClock[Action] = StampClock(
            lambda stream: counters.add(f"{stream}.odd_stamp")
        )
        self._calibrations = Calibrations()
        self._frames = VehicleFrames(lambda error: self.refuse("tf", error))
        self.assembler = FrameAssembler(self._calibrations, self._frames)
        self.poses = ExternalPoses(config, tracker, self._frames, lambda: self.newest_ns)
        node = config.current.node
        self._synchronizer: CameraSynchronizer[ImageEvent] = CameraSynchronizer(
            node.camera_names, node.camera_sync_tolerance_s
        )
        self._closed: list[ImageGroup] = []  # completed by the current event
        self._last_image_ns: dict[str, int] = {}

    def take(self, event: Event) -> list[ImageGroup]:
        """Take one event, quickly; return the groups of images that it completes."""
        try:
            self._take(event)
        except BadMessage as error:
            self.refuse(_part_of(event), error)
        closed, self._closed = self._closed, []
        return closed

    def open_groups(self) -> list[ImageGroup]:
        """Return the images that still wait for those of other cameras, as groups."""
        for images in self._synchronizer.flush():
            self._close(images)
        closed, self._closed = self._closed, []
        return closed

    def is_usable(self, group: ImageGroup) -> bool:
        """Return whether a group's stamp is trusted, and time has not gone back since it came."""
        return group.epoch == self.epoch and not group.odd_s

    def awaits_calibration(self, group: ImageGroup) -> bool:
        """Return whether a group has to wait for the first calibration or mounting."""
        if not self.is_usable(group):
            return False
        wait_ns = self._config.node.calibration_wait_s * 1e9
        in_time = self._newest_image_ns(group) - group.stamp_ns <= wait_ns
        return in_time and self.assembler.awaits(group.images, self._config.node)

    def awaits_odometry(self, group: ImageGroup) -> bool:
        """Return whether odometry has yet to reach a group's images and may still do so."""
        odometry_ns = self._tracker.odometry.stamp_ns
        needed_ns = self._config.camera.exposed_ns(group.newest_ns)[1]
        if odometry_ns is None or odometry_ns >= needed_ns or not self.is_usable(group):
            return False
        gap_ns = self._config.priors.odometry_max_gap_s * 1e9
        return self._newest_image_ns(group) - odometry_ns <= gap_ns

    def image_sizes(self, group: ImageGroup) -> dict[str, Size | None]:
        """Return the calibrated image sizes (width, height) of a group, by camera."""
        return {name: self._calibrations.size(name) for name in group.images}

    def refuse(self, part: str, error: BadMessage) -> None:
        """Count a message that cannot be used."""
        self._counters.add(f"{part}.bad.{error.reason}", str(error))

    def reset(self) -> None:
        """Forget the stamps so far."""
        self._clock.clear()
        self.poses.forget()

    @property
    def newest_ns(self) -> int | None:
        """The newest trusted stamp; None before the first."""
        return self._clock.newest_ns

    @property
    def _config(self) -> Config:
        return self._holder.current

    def _take(self, event: Event) -> None:
        self._counters.add(f"{_part_of(event)}.received")
        match event:
            case ImageEvent():
                offset_ns = self._config.node.camera_time_offset_ns
                self._take_image(replace(event, stamp_ns=event.stamp_ns + offset_ns))
            case CameraInfoEvent():
                self._take_calibration(event)
            case OdometryEvent():
                self._take_odometry(event)
            case FixEvent():
                self._take_fix(event)
            case PoseEvent():
                self.poses.take(event)
            case StaticTransformsEvent():
                self._take_static(event)
            case TransformsEvent():
                self._take_transforms(event)
            case RefusedMessage():
                self._take_refused(event)

    def _take_image(self, event: ImageEvent) -> None:
        name = event.camera_name
        if not self.enabled:
            self._counters.add("image.ignored")
            return
        if event.stamp_ns == self._last_image_ns.get(name):
            self._counters.add("image.repeated")
            return
        self._last_image_ns[name] = event.stamp_ns
        before_ns = self._clock.newest_of(_image_stream(name))
        admission = self._admit(_image_stream(name), event.stamp_ns)
        if admission.stamp is Stamp.PLAUSIBLE:
            for images in self._synchronizer.add(name, event.stamp_ns, event):
                self._close(images)
            self._count_late()
            self._compare_with_odometry(event.stamp_ns)
            return
        # An image with an odd stamp is not grouped with those of other cameras. Without odometry
        # to tell the time, a camera that skips ahead may just be slow.
        slow = admission.stamp is Stamp.AHEAD and self._tracker.odometry.stamp_ns is None
        odd_s = 0.0 if slow else (event.stamp_ns - (before_ns or 0)) * 1e-9
        self._close({name: event}, odd_s)

    def _compare_with_odometry(self, image_ns: int) -> None:
        """Count images that come with odometry of another time."""
        off_s = (image_ns - (self._clock.newest_of("odom") or image_ns)) * 1e-9
        if abs(off_s) > self._config.priors.odometry_max_gap_s:
            side = "after" if off_s > 0 else "before"
            self._counters.add(
                "image.without_odom",
                f"an image is stamped {abs(off_s):.1f} s {side} the newest odometry: has that "
                "stopped, or do both have different clocks?",
            )

    def _take_calibration(self, event: CameraInfoEvent) -> None:
        now_ns = self.newest_ns
        if changed := self._calibrations.take(event, event.stamp_ns if now_ns is None else now_ns):
            self._counters.add("camera_info.changed", changed)

    def _take_static(self, event: StaticTransformsEvent) -> None:
        for changed in self._frames.add_static(event):
            self._counters.add("tf_static.changed", changed)
        for refused in event.refused:
            self.refuse(refused.part, BadMessage(refused.reason, refused.message))

    def _take_odometry(self, event: OdometryEvent) -> None:
        if self._config.node.odom_source == "tf":
            self._counters.add("odom.ignored")
            return
        T_odom_base = self._frames.odometry_of_base(event, self._config.node)
        self._add_odometry(event.stamp_ns, T_odom_base)

    def _take_transforms(self, event: TransformsEvent) -> None:
        self._frames.add_moving(event)
        if self._config.node.odom_source == "tf":
            odometry = self._frames.odometry_on_tf(self._config.node)
            if odometry is not None:
                self._counters.add("odom_tf.received")
                self._add_odometry(*odometry)

    def _take_fix(self, event: FixEvent) -> None:
        base_frame = self._config.node.base_frame
        antenna = antenna_base(
            self._config.priors, self._frames.lookup_static, base_frame, event.frame_id
        )
        if antenna is None:
            self._counters.add(
                "gnss_fix.antenna_unknown",
                f"fixes have frame '{event.frame_id}', which /tf_static does not join to "
                f"'{base_frame}': the antenna is assumed at its origin; see priors.gnss_antenna_m",
            )
        take = partial(self._tracker.add_fix, event, antenna)
        if self._admit("gnss_fix", event.stamp_ns, take).stamp is Stamp.PLAUSIBLE:
            take()

    def _take_refused(self, event: RefusedMessage) -> None:
        self.refuse(event.part, BadMessage(event.reason, event.message))
        if event.part == "camera_info":
            self._calibrations.refuse(event)
        if event.part == "image" and not event.camera_name:  # a rig goes on without this camera
            self._close({"": event})

    def _add_odometry(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        take = partial(self._tracker.add_odometry, stamp_ns, T_odom_base)
        if self._admit("odom", stamp_ns, take).stamp is Stamp.PLAUSIBLE:
            take()

    def _admit(self, stream: str, stamp_ns: int, take: Action | None = None) -> Admission[Action]:
        """Judge a stamp; begin again if time went back, and process what was held back."""
        gap_s = self._config.priors.odometry_max_gap_s
        admission = self._clock.admit(stream, stamp_ns, gap_s, take)
        if admission.went_back:
            self._begin_again(stamp_ns)
        for take_held_back in admission.released:
            take_held_back()
        self._take_released_pose()
        return admission

    def _take_released_pose(self) -> None:
        """Use the pose whose stamp was odd, if time has moved there."""
        if (pose := self.poses.release()) is not None:
            try:
                self.poses.take(pose)
            except BadMessage as error:
                self.refuse(_part_of(pose), error)

    def _begin_again(self, stamp_ns: int) -> None:
        for images in self._synchronizer.flush():
            self._close(images)
        self._synchronizer.clear()
        self._calibrations.begin_again()
        self._counters.add("time.went_back")
        self.epoch += 1
        self._tracker.begin_again(stamp_ns)

    def _newest_image_ns(self, group: ImageGroup) -> int:
        """Return the newest stamp of a group's images and of all trusted images."""
        streams = map(_image_stream, self._config.node.camera_names)
        stamps_ns = [self._clock.newest_of(stream) for stream in streams]
        return max(group.newest_ns, *(stamp_ns or 0 for stamp_ns in stamps_ns))

    def _close(self, images: Mapping[str, ImageEvent | RefusedMessage], odd_s: float = 0.0) -> None:
        self._closed.append(ImageGroup(dict(images), self.epoch, odd_s))

    def _count_late(self) -> None:
        for camera in self._synchronizer.late.elements():
            self._counters.add(f"image.late.{camera}")
        self._synchronizer.late.clear()


def _part_of(event: Event) -> str:
    """Return the role of an event's message, as in `sensors.topics`."""
    if isinstance(event, RefusedMessage):
        return event.part
    if isinstance(event, PoseEvent):
        return "gnss_pose" if event.source == "gnss" else event.source
    return _PARTS[type(event)]


_PARTS: dict[type, str] = {
    ImageEvent: "image",
    CameraInfoEvent: "camera_info",
    OdometryEvent: "odom",
    FixEvent: "gnss_fix",
    StaticTransformsEvent: "tf_static",
    TransformsEvent: "tf",
}


def _image_stream(camera_name: str) -> str:
    return f"image.{camera_name}" if camera_name else "image"
