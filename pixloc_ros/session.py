"""Localize a vehicle over a whole drive, event by event.

This is the only engine, for live and for replayed drives: a node passes it the messages that it
receives, a replay those of a bag. It knows nothing of ROS and starts no threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from pixloc_ros.common.arguments import Arguments
from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.priors.keyframe_lookup import MapLike
from pixloc_ros.priors.mounting_record import MountingRecord
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.sensors.counters import Counters
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.event_intake import EventIntake
from pixloc_ros.sensors.events import (
    Event,
    Image,
    ImageEvent,
)
from pixloc_ros.sensors.frame_assembler import NotReady
from pixloc_ros.sensors.frozen_images import FrozenImages
from pixloc_ros.sensors.image_group import DecodedImages, ImageGroup
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status


class FrameLocalizer(Protocol):
    """What a session needs of a localizer."""

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
    """The result for the images of one moment."""

    estimate: Estimate
    group: ImageGroup
    camera_frame: str  # of the lead camera
    generation: int  # of the tracker, see PoseTracker.generation
    frame: Frame | None = None  # of the lead camera, to whose image the estimate's pixels refer
    cameras_missing: tuple[str, ...] = ()  # of a rig: those without a usable image

    @property
    def image_rgb(self) -> Image | None:
        """The image (H, W, 3) that the estimate's pixels refer to; None if it was not decoded."""
        return None if self.frame is None else self.frame.image_rgb


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
    localizer, so it calls the two steps of `push` itself: `intake.take` with each event, which is
    quick, and `answer` in its worker, which is slow, with each group of images that `awaits` no
    further message. Not thread-safe.

    A frame waits for two things: for odometry at or after its stamp, so that its prior can be
    interpolated, and for the first calibration and mounting of its camera. It stops waiting when
    the images that follow show that waiting is of no use.
    """

    def __init__(self, localizer: FrameLocalizer, counters: Counters | None = None) -> None:
        arguments = Arguments("Session", DataError)
        fits = hasattr(localizer, "holder") and hasattr(localizer, "localize")
        arguments.require(fits, "localizer", localizer, "a Localizer")
        config = localizer.holder
        self.counters = counters or Counters()
        self.tracker = PoseTracker(config, localizer.map, localizer.can_search)
        self.intake = EventIntake(config, self.tracker, self.counters)
        self.mounting = MountingRecord()  # of a single camera; stays empty for a rig
        self._localizer = localizer
        self._frozen_images = FrozenImages()
        self._waiting: deque[ImageGroup] = deque()  # used only by `push` and `finish`
        self._answered = 0

    def run(self, events: Iterable[Event]) -> Iterator[Estimate]:
        """Yield the estimates of a whole drive, in the order of its images."""
        return (answer.estimate for answer in self.answers(events))

    def answers(self, events: Iterable[Event]) -> Iterator[Answer]:
        """Yield the answers of a whole drive: its estimates with their images and calibrations."""
        for event in events:
            yield from self._push(event)
        yield from self._finish()

    def push(self, event: Event) -> list[Estimate]:
        """Take one event; return the estimates of the images that need not wait any longer."""
        return [answer.estimate for answer in self._push(event)]

    def finish(self) -> list[Estimate]:
        """End the drive; return the estimates of the images that were still waiting."""
        return [answer.estimate for answer in self._finish()]

    def awaits(self, group: ImageGroup) -> bool:
        """Return whether a later message may improve a group's estimate, or make one possible."""
        return self.intake.awaits_calibration(group) or self.intake.awaits_odometry(group)

    def decode(self, group: ImageGroup, guard: AbstractContextManager[object]) -> DecodedImages:
        """Decode the images of a group, and refuse those whose size is not the calibrated one.

        guard: entered while the calibrations are read. A refused image is a BadMessage in the
        result.
        """
        with guard:
            sizes = self.intake.image_sizes(group)
        return group.decode(sizes)

    def answer(
        self,
        group: ImageGroup,
        images: DecodedImages | None = None,
        guard: AbstractContextManager[object] | None = None,
    ) -> Answer:
        """Localize a group of images. This is the slow part.

        images: what `decode` returned, if it was called already.
        guard: entered whenever the session's own state is read or changed; between two entries,
        other threads may change it.
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
        """Return the answer for a group whose localization raised an unforeseen exception."""
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return self._fail(group, Reason.INTERNAL_ERROR, message)

    def reset(self) -> None:
        """Forget poses, odometry and fixes; calibrations, transforms and counters stay."""
        self.tracker.reset()
        self.intake.reset()

    @property
    def config(self) -> Config:
        """The current configuration of the localizer."""
        return self._localizer.holder.current

    def _push(self, event: Event) -> Iterator[Answer]:
        if not isinstance(event, Event):
            kind = type(event).__name__
            raise DataError(f"Session: a {kind} is no event of pixloc_ros.sensors.events")
        self._waiting.extend(self.intake.take(event))
        while self._waiting and not self.awaits(self._waiting[0]):
            yield self.answer(self._waiting.popleft())

    def _finish(self) -> Iterator[Answer]:
        self._waiting.extend(self.intake.open_groups())
        waiting, self._waiting = self._waiting, deque()
        return (self.answer(group) for group in waiting)

    def _begin(self, group: ImageGroup, images: DecodedImages) -> _Task | Answer:
        """Make frames of a group and find their prior, or answer why that cannot be."""
        if refusal := self._stamp_refusal(group):
            return self._fail(group, *refusal)
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
            answer = self._fail(group, Reason.FROZEN_IMAGE, message, frames[0])
            self.tracker.update(answer.estimate)
            return answer
        # External poses without height or heading are completed by keyframes, which are of cameras.
        self.tracker.keyframes.T_base_cam = usable[0].T_base_cam
        prior = self.tracker.prior(usable[0].stamp_ns)
        return _Task(group, tuple(usable), prior, self.tracker.generation)

    def _stamp_refusal(self, group: ImageGroup) -> tuple[Reason, str] | None:
        """Return why a group cannot be localized at its stamp; None if it can."""
        if group.epoch != self.intake.epoch:
            return Reason.SUPERSEDED, "time went back while this image was waiting"
        if group.odd_s:
            side = "after" if group.odd_s > 0 else "before"
            off = f"{abs(group.odd_s):.1f} s {side} that of the last image"
            message = f"its stamp is {off}: a single odd stamp is not trusted"
            return Reason.ODD_STAMP, message
        return None

    def _assemble(self, group: ImageGroup, images: DecodedImages) -> list[Frame]:
        """Return the frames of the cameras that have all they need.

        Raises the problem of the first camera if no camera has.
        """
        frames: list[Frame] = []
        problems: list[BadMessage | NotReady] = []
        for camera_name, event in group.images.items():
            image = images[camera_name]
            try:
                if isinstance(image, BadMessage):
                    of = f"camera {camera_name}: " if camera_name else ""
                    raise BadMessage(image.reason, f"{of}{image}")
                assert isinstance(event, ImageEvent)
                frame = self.intake.assembler.frame(
                    camera_name, event, image, self._next_name, self.config.node
                )
                frames.append(self._with_shutter(frame))
            except (BadMessage, NotReady) as problem:
                problems.append(problem)
                if isinstance(problem, BadMessage) and isinstance(event, ImageEvent):
                    self.intake.refuse("image", problem)
        if not frames:
            raise problems[0]
        return frames

    def _with_shutter(self, frame: Frame) -> Frame:
        """Add to a frame how its camera moved, by odometry, while the rows were exposed."""
        shutter = self.config.camera
        if not shutter.readout_s:
            return frame
        T_first_last = self.tracker.odometry.motion(*shutter.exposed_ns(frame.stamp_ns))
        if T_first_last is None:
            line = "no odometry while an image was read: its rolling shutter is not corrected"
            self.counters.add("image.shutter_uncorrected", line)
            return frame
        of_camera = se3.inverse(frame.T_base_cam) @ T_first_last @ frame.T_base_cam
        return replace(frame, camera=frame.camera.rolling(of_camera, shutter.stamp_share))

    def _without_frozen(self, frames: Sequence[Frame]) -> list[Frame]:
        """Leave out frozen images; move the other frames to the stamp of the first by odometry."""
        distance_m = self.config.node.frozen_image_distance_m
        motion = self.tracker.odometry.motion
        usable = [f for f in frames if not self._frozen_images.is_frozen(f, motion, distance_m)]
        return [self._as_of(usable[0].stamp_ns, frame) for frame in usable]

    def _as_of(self, stamp_ns: int, frame: Frame) -> Frame:
        """Move a frame to a stamp by odometry; without odometry, assume that nothing has moved."""
        T_then_now = self.tracker.odometry.motion(stamp_ns, frame.stamp_ns)
        if frame.stamp_ns == stamp_ns or T_then_now is None:
            return frame
        return replace(frame, T_base_cam=T_then_now @ frame.T_base_cam, stamp_ns=stamp_ns)

    def _conclude(self, task: _Task, estimate: Estimate) -> Answer:
        """Accept the localizer's verdict, unless the pose was reset in the meantime."""
        if self.tracker.generation != task.generation:
            message = "the pose was reset while this frame was being processed"
            estimate = estimate.rejected(Reason.SUPERSEDED, message)
        else:
            estimate = self.tracker.update(estimate)
        if len(self.config.node.camera_names) == 1:
            self.mounting.take(estimate, task.frames[0].T_base_cam, self.tracker.odometry)
        there = {frame.camera_name: frame for frame in task.frames}
        lead_name = next(iter(estimate.cameras), task.frames[0].camera_name)
        missing = [name for name in self.config.node.camera_names if name not in there]
        return self._answer(task.group, estimate, lead_name, there[lead_name], tuple(missing))

    def _fail(
        self, group: ImageGroup, reason: Reason, message: str, frame: Frame | None = None
    ) -> Answer:
        stamp_ns = group.stamp_ns
        estimate = Estimate(Status.FAILED, reason, message, stamp_ns, self._next_name)
        return self._answer(group, estimate, next(iter(group.images)), frame)

    def _answer(
        self,
        group: ImageGroup,
        estimate: Estimate,
        lead_name: str,
        frame: Frame | None,
        missing: tuple[str, ...] = (),
    ) -> Answer:
        self._answered += 1
        self.counters.add(f"frame.{estimate.reason.value}")
        camera_frame = self.intake.assembler.camera_frame(group.images[lead_name], self.config.node)
        generation = self.tracker.generation
        return Answer(estimate, group, camera_frame, generation, frame, missing)

    @property
    def _next_name(self) -> str:
        return f"{self._answered:06d}"
