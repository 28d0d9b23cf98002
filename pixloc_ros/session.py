"""Where is the vehicle on the map, over a whole drive? The story of a drive, event by event.

Live and replayed, this is the only engine: a node hands it what it receives, a replay what a bag
holds. It knows nothing of ROS and has no threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.priors.gnss import antenna_base
from pixloc_ros.priors.keyframe_lookup import MapLike
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.sensors.calibrations import Calibrations
from pixloc_ros.sensors.camera_synchronizer import CameraSynchronizer
from pixloc_ros.sensors.counters import Counters
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    Event,
    FixEvent,
    Image,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    RefusedMessage,
    StaticTransformsEvent,
    TransformsEvent,
)
from pixloc_ros.sensors.frame_assembler import FrameAssembler, NotReady
from pixloc_ros.sensors.frozen_images import FrozenImages
from pixloc_ros.sensors.image_group import DecodedImages, ImageGroup
from pixloc_ros.sensors.stamp_clock import Admission, Stamp, StampClock
from pixloc_ros.sensors.vehicle_frames import VehicleFrames
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status

Action = Callable[[], None]  # taking a message whose stamp is confirmed


class FrameLocalizer(Protocol):
    """What a session asks of a localizer."""

    @property
    def holder(self) -> ConfigHolder: ...
    @property
    def map(self) -> MapLike: ...
    @property
    def can_search(self) -> bool: ...
    def localize(
        self, frame: Frame, prior: PosePrior | None, other_cameras: Sequence[Frame], /
    ) -> Estimate: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of the images of one moment."""

    estimate: Estimate
    group: ImageGroup
    camera_frame: str  # of the lead camera
    generation: int  # of the tracker, see PoseTracker.generation
    image_rgb: Image | None = None  # that the estimate's pixels are of
    cameras_missing: tuple[str, ...] = ()  # of a rig: without a usable image


@dataclass(frozen=True, slots=True)
class _Task:
    """Frames that are ready to be localized, the lead first."""

    group: ImageGroup
    frames: tuple[Frame, ...]
    prior: PosePrior | None
    generation: int


class Session:
    """Takes the events of a drive in order, and answers each image with an estimate.

    A replay calls `push` with each event and `finish` at the end. A node must not wait for the
    localizer, so it calls the steps of `push` itself: `take` with each event, and, in its worker,
    `answer` with a group of images once it is not `awaits` any more. Not thread-safe.

    A frame waits for odometry at or after its stamp, so that its prior is interpolated, and for
    the first calibration and mounting of its camera, while the images that follow show that this
    may be of use.
    """

    def __init__(self, localizer: FrameLocalizer, counters: Counters | None = None) -> None:
        config = localizer.holder
        self.counters = counters or Counters()
        self.enabled = True  # whether images are worked on
        self.epoch = 0  # how often time went back
        self.tracker = PoseTracker(config, localizer.map, localizer.can_search)
        self._localizer = localizer
        self._clock: StampClock[Action] = StampClock(
            lambda stream: self.counters.add(f"{stream}.odd_stamp")
        )
        self._calibrations = Calibrations()
        self._frames = VehicleFrames(lambda error: self._refuse("tf", error))
        self._assembler = FrameAssembler(self._calibrations, self._frames)
        self._frozen_images = FrozenImages()
        node = config.current.node
        self._synchronizer: CameraSynchronizer[ImageEvent] = CameraSynchronizer(
            node.camera_names, node.camera_sync_tolerance_s
        )
        self._closed: list[ImageGroup] = []  # by the event that is being taken
        self._waiting: deque[ImageGroup] = deque()  # of `push` only
        self._last_image_ns: dict[str, int] = {}
        self._answered = 0

    # --- one call for each event --------------------------------------------------------------

    def run(self, events: Iterable[Event]) -> Iterator[Estimate]:
        """Yield the estimates of a whole drive, in the order of its images."""
        for event in events:
            yield from self.push(event)
        yield from self.finish()

    def push(self, event: Event) -> list[Estimate]:
        """Take one event; return the estimates of the images that need not wait any longer."""
        self._waiting.extend(self.take(event))
        estimates = []
        while self._waiting and not self.awaits(self._waiting[0]):
            estimates.append(self.answer(self._waiting.popleft()).estimate)
        return estimates

    def finish(self) -> list[Estimate]:
        """End the drive; return the estimates of the images that were still waiting."""
        self._waiting.extend(self.open_groups())
        waiting, self._waiting = self._waiting, deque()
        return [self.answer(group).estimate for group in waiting]

    # --- its steps ----------------------------------------------------------------------------

    def take(self, event: Event) -> list[ImageGroup]:
        """Take one event, quickly; return the groups of images that it completes."""
        try:
            self._take(event)
        except BadMessage as error:
            self._refuse(_part_of(event), error)
        closed, self._closed = self._closed, []
        return closed

    def open_groups(self) -> list[ImageGroup]:
        """Return the images that still wait for those of other cameras, as groups."""
        for images in self._synchronizer.flush():
            self._close(images)
        closed, self._closed = self._closed, []
        return closed

    def awaits(self, group: ImageGroup) -> bool:
        """Return whether a message to come may make a group's estimate better, or possible."""
        return self.awaits_calibration(group) or self.awaits_odometry(group)

    def awaits_calibration(self, group: ImageGroup) -> bool:
        """Return whether a group has to wait for the first calibration or mounting."""
        if not self._is_usable(group):
            return False
        wait_ns = self.config.node.calibration_wait_s * 1e9
        in_time = self._newest_image_ns(group) - group.stamp_ns <= wait_ns
        return in_time and self._assembler.awaits(group.images, self.config.node)

    def awaits_odometry(self, group: ImageGroup) -> bool:
        """Return whether odometry has yet to reach a group's stamps, and has not stopped."""
        odometry_ns = self.tracker.odometry.stamp_ns
        if odometry_ns is None or odometry_ns >= group.newest_ns or not self._is_usable(group):
            return False
        gap_ns = self.config.priors.odometry_max_gap_s * 1e9
        return self._newest_image_ns(group) - odometry_ns <= gap_ns

    def decode(self, group: ImageGroup, guard: AbstractContextManager[object]) -> DecodedImages:
        """Decode the images of a group; those of another size than calibrated are refused."""
        with guard:
            sizes = {name: self._calibrations.size(name) for name in group.images}
        return group.decode(sizes)

    def answer(
        self,
        group: ImageGroup,
        images: DecodedImages | None = None,
        guard: AbstractContextManager[object] | None = None,
    ) -> Answer:
        """Localize a group of images: the slow part.

        images: what `decode` returned, if that is done already. guard: entered whenever the
        session itself is read or changed, which other threads may do in between.
        """
        guard = nullcontext() if guard is None else guard
        images = self.decode(group, guard) if images is None else images
        with guard:
            task = self._begin(group, images)
        if isinstance(task, Answer):
            return task
        lead, *others = task.frames
        estimate = self._localizer.localize(lead, task.prior, others)
        with guard:
            return self._conclude(task, estimate)

    def failed(self, group: ImageGroup, error: Exception) -> Answer:
        """Answer a group that an unforeseen exception ended."""
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return self._fail(group, Reason.INTERNAL_ERROR, message)

    def state_pose(self, event: PoseEvent) -> None:
        """Take an external pose. Raises BadMessage where it cannot be used."""
        if fault := self._add_pose(event):
            raise BadMessage(fault, f"the pose is refused: {fault.replace('_', ' ')}")

    def reset(self) -> None:
        """Forget poses, odometry and fixes; calibrations, transforms and counters stay."""
        self.tracker.reset()
        self._clock.clear()

    @property
    def config(self) -> Config:
        """The configuration in force now, which is the localizer's."""
        return self._localizer.holder.current

    @property
    def newest_ns(self) -> int | None:
        """The newest stamp of odometry and images; None before the first."""
        return self._clock.newest_ns

    # --- events -------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        self.counters.add(f"{_part_of(event)}.received")
        match event:
            case ImageEvent():
                self._take_image(event)
            case CameraInfoEvent():
                self._take_calibration(event)
            case OdometryEvent():
                self._take_odometry(event)
            case FixEvent():
                self._take_fix(event)
            case PoseEvent():
                self._add_pose(event)
            case StaticTransformsEvent():
                self._take_static(event)
            case TransformsEvent():
                self._take_transforms(event)
            case RefusedMessage():
                self._take_refused(event)

    def _take_image(self, event: ImageEvent) -> None:
        name = event.camera_name
        if not self.enabled:
            self.counters.add("image.ignored")
            return
        if event.stamp_ns == self._last_image_ns.get(name):
            self.counters.add("image.repeated")
            return
        self._last_image_ns[name] = event.stamp_ns
        before_ns = self._clock.newest_of(_image_stream(name))
        admission = self._admit(_image_stream(name), event.stamp_ns)
        if admission.stamp is Stamp.PLAUSIBLE:
            for images in self._synchronizer.add(name, event.stamp_ns, event):
                self._close(images)
            self._count_late()
            return
        # Neither with nor before the images of other cameras. A camera that nothing else tells the
        # time may well be slow, and skip ahead.
        slow = admission.stamp is Stamp.AHEAD and self.tracker.odometry.stamp_ns is None
        odd_s = 0.0 if slow else (event.stamp_ns - (before_ns or 0)) * 1e-9
        self._close({name: event}, odd_s)

    def _take_calibration(self, event: CameraInfoEvent) -> None:
        if changed := self._calibrations.take(event):
            self.counters.add("camera_info.changed", changed)

    def _take_static(self, event: StaticTransformsEvent) -> None:
        self._frames.add_static(event)
        for refused in event.refused:
            self._refuse(refused.part, BadMessage(refused.reason, refused.message))

    def _take_odometry(self, event: OdometryEvent) -> None:
        if self.config.node.odom_source == "tf":
            self.counters.add("odom.ignored")
            return
        T_odom_base = self._frames.odometry_of_base(event, self.config.node)
        self._add_odometry(event.stamp_ns, T_odom_base)

    def _take_transforms(self, event: TransformsEvent) -> None:
        self._frames.add_moving(event)
        if self.config.node.odom_source == "tf":
            odometry = self._frames.odometry_on_tf(self.config.node)
            if odometry is not None:
                self.counters.add("odom_tf.received")
                self._add_odometry(*odometry)

    def _take_fix(self, event: FixEvent) -> None:
        base_frame = self.config.node.base_frame
        antenna = antenna_base(
            self.config.priors, self._frames.lookup_static, base_frame, event.frame_id
        )
        if antenna is None:
            self.counters.add(
                "gnss_fix.antenna_unknown",
                f"fixes are of frame '{event.frame_id}', which /tf_static does not join to "
                f"'{base_frame}': taken as of that; see priors.gnss_antenna_m",
            )
        take = partial(self._add_fix, event, antenna)
        if self._admit("gnss_fix", event.stamp_ns, take).stamp is Stamp.PLAUSIBLE:
            take()

    def _add_fix(self, event: FixEvent, antenna: Matrix | None) -> None:
        position = event.latitude_deg, event.longitude_deg, event.altitude_m
        self.tracker.add_fix(event.stamp_ns, *position, event.covariance_enu, event.status, antenna)

    def _add_pose(self, event: PoseEvent) -> str:
        """Take an external pose in any frame; why the tracker refused it, or ""."""
        T_map_own = self._own_transform(event.stamp_ns)
        event = self._frames.pose_in_map(event, self.config.node, T_map_own)
        return self.tracker.add_pose(
            event.stamp_ns, event.T_frame_base, event.covariance, event.source
        )

    def _own_transform(self, stamp_ns: int) -> Matrix | None:
        """What the localizer tells on /tf at a stamp: map<-odom or map<-base (4, 4)."""
        predicted = self.tracker.predict(stamp_ns)
        if predicted is None:
            return None
        mode = self.config.node.tf_mode
        return {"map_odom": self.tracker.T_map_odom, "map_base": predicted[0]}.get(mode)

    def _take_refused(self, event: RefusedMessage) -> None:
        self._refuse(event.part, BadMessage(event.reason, event.message))
        if event.part == "camera_info":
            self._calibrations.refuse(event)
        if event.part == "image" and not event.camera_name:  # the others of a rig go on
            self._close({"": event})

    def _refuse(self, part: str, error: BadMessage) -> None:
        self.counters.add(f"{part}.bad.{error.reason}", str(error))

    # --- time ---------------------------------------------------------------------------------

    def _add_odometry(self, stamp_ns: int, T_odom_base: Matrix) -> None:
        take = partial(self.tracker.add_odometry, stamp_ns, T_odom_base)
        if self._admit("odom", stamp_ns, take).stamp is Stamp.PLAUSIBLE:
            take()

    def _admit(self, stream: str, stamp_ns: int, take: Action | None = None) -> Admission[Action]:
        """Judge a stamp; begin anew where time went back, take what was held back."""
        gap_s = self.config.priors.odometry_max_gap_s
        admission = self._clock.admit(stream, stamp_ns, gap_s, take)
        if admission.went_back:
            self._begin_again(stamp_ns)
        for take_held_back in admission.released:
            take_held_back()
        return admission

    def _begin_again(self, stamp_ns: int) -> None:
        for images in self._synchronizer.flush():
            self._close(images)
        self._synchronizer.clear()
        self.counters.add("time.went_back")
        self.epoch += 1
        self.tracker.begin_again(stamp_ns)

    def _newest_image_ns(self, group: ImageGroup) -> int:
        """The newest stamp of images: of a group, and of all that are believed."""
        streams = map(_image_stream, self.config.node.camera_names)
        stamps_ns = [self._clock.newest_of(stream) for stream in streams]
        return max(group.newest_ns, *(stamp_ns or 0 for stamp_ns in stamps_ns))

    # --- images -------------------------------------------------------------------------------

    def _close(self, images: Mapping[str, ImageEvent | RefusedMessage], odd_s: float = 0.0) -> None:
        self._closed.append(ImageGroup(dict(images), self.epoch, odd_s))

    def _count_late(self) -> None:
        for camera in self._synchronizer.late.elements():
            self.counters.add(f"image.late.{camera}")
        self._synchronizer.late.clear()

    def _is_usable(self, group: ImageGroup) -> bool:
        """Whether its images are of the present."""
        return group.epoch == self.epoch and not group.odd_s

    def _begin(self, group: ImageGroup, images: DecodedImages) -> _Task | Answer:
        """Make frames of a group and find their prior, or answer why that cannot be."""
        if group.epoch != self.epoch:
            message = "time went back while this image was waiting"
            return self._fail(group, Reason.SUPERSEDED, message)
        if group.odd_s:
            side = "after" if group.odd_s > 0 else "before"
            message = f"its stamp is {abs(group.odd_s):.1f} s {side} that of the last image"
            return self._fail(group, Reason.ODD_STAMP, f"{message}: one alone is not believed")
        try:
            frames = self._assemble(group, images)
        except BadMessage as error:
            return self._fail(group, Reason.BAD_IMAGE, str(error))
        except NotReady as error:
            return self._fail(group, error.reason, str(error))
        if (self.tracker.odometry.stamp_ns or group.newest_ns) < group.newest_ns:
            self.counters.add("odom.late")
        usable = self._without_frozen(frames)
        if not usable:
            message = "the image has not changed although the vehicle moves"
            answer = self._fail(group, Reason.FROZEN_IMAGE, message, frames[0].image_rgb)
            self.tracker.update(answer.estimate)
            return answer
        self.tracker.keyframes.T_base_cam = usable[0].T_base_cam
        prior = self.tracker.prior(usable[0].stamp_ns)
        return _Task(group, tuple(usable), prior, self.tracker.generation)

    def _assemble(self, group: ImageGroup, images: DecodedImages) -> list[Frame]:
        """Frames of the cameras that have all they need; raises why the first has not, if none."""
        frames: list[Frame] = []
        problems: list[BadMessage | NotReady] = []
        for camera_name, event in group.images.items():
            image = images[camera_name]
            try:
                if isinstance(image, BadMessage):
                    raise image
                assert isinstance(event, ImageEvent)
                where = self._next_name, self.config.node
                frames.append(self._assembler.frame(camera_name, event, image, *where))
            except (BadMessage, NotReady) as problem:
                problems.append(problem)
                if isinstance(problem, BadMessage) and isinstance(event, ImageEvent):
                    self._refuse("image", problem)
        if not frames:
            raise problems[0]
        return frames

    def _without_frozen(self, frames: Sequence[Frame]) -> list[Frame]:
        """Frames whose image is of their stamp, as if all were taken at that of the first."""
        distance_m = self.config.node.frozen_image_distance_m
        motion = self.tracker.odometry.motion
        usable = [f for f in frames if not self._frozen_images.is_frozen(f, motion, distance_m)]
        return [self._as_of(usable[0].stamp_ns, frame) for frame in usable]

    def _as_of(self, stamp_ns: int, frame: Frame) -> Frame:
        """The frame as if taken at a stamp, by odometry; where that is silent nothing has moved."""
        T_then_now = self.tracker.odometry.motion(stamp_ns, frame.stamp_ns)
        if frame.stamp_ns == stamp_ns or T_then_now is None:
            return frame
        return replace(frame, T_base_cam=T_then_now @ frame.T_base_cam, stamp_ns=stamp_ns)

    def _conclude(self, task: _Task, estimate: Estimate) -> Answer:
        """Take the localizer's verdict, unless the pose was set anew in the meantime."""
        if self.tracker.generation != task.generation:
            message = "the pose was set anew while this frame was in work"
            estimate = estimate.rejected(Reason.SUPERSEDED, message)
        else:
            estimate = self.tracker.update(estimate)
        there = {frame.camera_name: frame.image_rgb for frame in task.frames}
        lead_name = next(iter(estimate.cameras), task.frames[0].camera_name)
        missing = [name for name in self.config.node.camera_names if name not in there]
        return self._answer(task.group, estimate, lead_name, there[lead_name], tuple(missing))

    def _fail(
        self, group: ImageGroup, reason: Reason, message: str, image_rgb: Image | None = None
    ) -> Answer:
        stamp_ns = group.stamp_ns
        estimate = Estimate(Status.FAILED, reason, message, stamp_ns, self._next_name)
        return self._answer(group, estimate, next(iter(group.images)), image_rgb)

    def _answer(
        self,
        group: ImageGroup,
        estimate: Estimate,
        lead_name: str,
        image_rgb: Image | None,
        missing: tuple[str, ...] = (),
    ) -> Answer:
        self._answered += 1
        self.counters.add(f"frame.{estimate.reason.value}")
        camera_frame = self._assembler.camera_frame(group.images[lead_name], self.config.node)
        generation = self.tracker.generation
        return Answer(estimate, group, camera_frame, generation, image_rgb, missing)

    @property
    def _next_name(self) -> str:
        return f"{self._answered:06d}"


def _part_of(event: Event) -> str:
    """The part that an event's message plays, as in `sensors.topics`."""
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
