"""Events of a bag in, one estimate per image out: the same calls as in the live node."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from pixloc_ros.config import Config
from pixloc_ros.errors import BagError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.localizer import Localizer
from pixloc_ros.priors.gnss import antenna_base
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.sensors.camera_synchronizer import CameraSynchronizer
from pixloc_ros.sensors.events import (
    CameraInfoEvent,
    Event,
    FixEvent,
    ImageEvent,
    OdometryEvent,
    PoseEvent,
    RejectedEvent,
)
from pixloc_ros.sensors.frozen_images import FreezeWatch, frozen
from pixloc_ros.sensors.static_transforms import StaticTransforms, normalized
from pixloc_ros.types import Estimate, Frame, Reason, Status


class StampGuard:
    """Notices stamps of images or odometry that go back by more than a little: a bag that loops."""

    def __init__(self, tolerance_s: float):
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._newest_ns: dict[type, int] = {}

    def went_back(self, event: Event) -> bool:
        """Whether this event begins an earlier time than its kind had reached."""
        if not isinstance(event, ImageEvent | OdometryEvent):
            return False
        kind, stamp_ns = type(event), event.stamp_ns
        back = stamp_ns < self._newest_ns.get(kind, stamp_ns) - self._tolerance_ns
        if back:
            self._newest_ns.clear()
        self._newest_ns[kind] = max(stamp_ns, self._newest_ns.get(kind, stamp_ns))
        return back


class Replayer:
    """Takes the events of a bag in order and yields an estimate per image.

    A frame waits for odometry at or after its stamp, as in the node, so that its prior is
    interpolated. `counts` says what was refused or unusual.
    """

    def __init__(
        self,
        localizer: Localizer,
        tracker: PoseTracker,
        transforms: StaticTransforms,
        cameras: Sequence[CameraInfoEvent],
        config: Config,
    ):
        self.counts: Counter[str] = Counter()
        self._localizer, self._tracker, self._config = localizer, tracker, config
        self._transforms = transforms
        self._cameras: dict[str, CameraInfoEvent | None] = {c.camera_name: c for c in cameras}
        self._camera_problem = ""
        self._together = CameraSynchronizer[ImageEvent](
            config.node.camera_names, config.node.camera_sync_tolerance_s
        )
        self._waiting: deque[Sequence[ImageEvent]] = deque()
        self._guard = StampGuard(config.priors.odometry_max_gap_s)
        self._freezes = FreezeWatch(config.node.frozen_image_distance_m)
        self._newest_image_ns: dict[str, int] = {}
        self._frames = 0

    def run(self, events: Iterable[Event]) -> Iterator[Estimate]:
        """Estimates in the order of the frames; raises BagError for frame ids without a chain."""
        for event in events:
            if self._guard.went_back(event):
                yield from self._flush()
                self._together.clear()
                self.counts["stamps_back"] += 1
                self._tracker.reset()
            if isinstance(event, RejectedEvent):
                yield from self._refuse(event)
            else:
                self._take(event)
            yield from self._due()
        yield from self._flush()
        self.counts.update({f"image_late_{c}": n for c, n in self._together.late.items()})

    def _take(self, event: Event) -> None:
        match event:
            case ImageEvent():
                self._queue(event)
            case CameraInfoEvent():
                self._calibrate(event)
            case OdometryEvent():
                T_child_base = self._odometry_to_base(event)
                self._tracker.add_odometry(event.stamp_ns, event.T_odom_base @ T_child_base)
            case FixEvent():
                self._take_fix(event)
            case PoseEvent():
                self._take_pose(event)

    def _queue(self, image: ImageEvent) -> None:
        if image.stamp_ns == self._newest_image_ns.get(image.camera_name):
            self.counts["image_repeated"] += 1
            return
        self._newest_image_ns[image.camera_name] = image.stamp_ns
        groups = self._together.add(image.camera_name, image.stamp_ns, image)
        self._waiting.extend(tuple(group.values()) for group in groups)

    def _due(self) -> Iterator[Estimate]:
        while self._waiting and self._is_due(self._waiting[0]):
            yield self._localize(self._waiting.popleft())

    def _is_due(self, images: Sequence[ImageEvent]) -> bool:
        # Where odometry has stopped, the newest image shows that waiting is of no use.
        stamp_ns = max(image.stamp_ns for image in images)
        waited_ns = self._waiting[-1][0].stamp_ns - stamp_ns
        given_up = waited_ns > self._config.priors.odometry_max_gap_s * 1e9
        return given_up or self._tracker.ready(stamp_ns)

    def _flush(self) -> Iterator[Estimate]:
        self._waiting.extend(tuple(group.values()) for group in self._together.flush())
        while self._waiting:
            yield self._localize(self._waiting.popleft())

    def _localize(self, images: Sequence[ImageEvent]) -> Estimate:
        name, stamp_ns = self._next_name(), images[0].stamp_ns
        frames = [frame for image in images if (frame := self._frame(image, name))]
        if not frames:
            message = f"no usable CameraInfo: {self._camera_problem}"
            return self._failed(stamp_ns, Reason.NO_CAMERA_INFO, message, name)
        usable = self._freezes.usable(frames, self._tracker)
        if not usable:
            return self._tracker.update(frozen(frames[0]))
        lead, *beside = usable
        self._tracker.T_base_cam = lead.T_base_cam
        prior = self._tracker.prior(lead.stamp_ns)
        return self._tracker.update(self._localizer.localize(lead, prior, beside))

    def _frame(self, image: ImageEvent, name: str) -> Frame | None:
        info = self._cameras.get(image.camera_name)
        if info is None:
            return None
        T_base_cam = self._base_from_cam(image.frame_id or info.frame_id)
        seen = image.image_rgb, info.camera, image.stamp_ns
        return Frame(*seen, T_base_cam, name, image.camera_name)

    def _refuse(self, event: RejectedEvent) -> Iterator[Estimate]:
        self.counts[event.reason] += 1
        if event.part == "camera_info":
            self._cameras[event.camera_name], self._camera_problem = None, event.message
        if event.part == "image" and not event.camera_name:  # the others of a rig go on
            yield from self._flush()
            yield self._failed(event.stamp_ns, Reason.BAD_IMAGE, event.message, self._next_name())

    def _calibrate(self, event: CameraInfoEvent) -> None:
        before = self._cameras.get(event.camera_name)
        if before is not None and not _same(event.camera, before.camera):
            self.counts["camera_info_changed"] += 1
        self._cameras[event.camera_name] = event

    def _take_fix(self, event: FixEvent) -> None:
        where = self._transforms.lookup, self._config.node.base_frame, event.frame_id
        antenna = antenna_base(self._config.priors, *where)
        if antenna is None:
            self.counts["gnss_antenna_unknown"] += 1  # taken as standing at the base
        position = (event.latitude_deg, event.longitude_deg, event.altitude_m)
        self._tracker.add_fix(
            event.stamp_ns, *position, event.covariance_enu, event.status, antenna
        )

    def _take_pose(self, event: PoseEvent) -> None:
        map_frame = self._config.node.map_frame
        T_map_frame = self._transforms.lookup(map_frame, event.frame_id or map_frame)
        if T_map_frame is None:
            self.counts[f"{event.source}_in_frame_{normalized(event.frame_id)}"] += 1
            return
        event = event.seen_from(T_map_frame)
        self._tracker.add_pose(event.stamp_ns, event.T_map_base, event.covariance, event.source)

    def _base_from_cam(self, image_frame: str) -> Matrix:
        camera_frame = self._config.node.camera_frame or image_frame
        T_base_cam = self._transforms.lookup(self._config.node.base_frame, camera_frame)
        if T_base_cam is None and self._config.node.identity_extrinsics:
            return se3.base_from_optical()
        return self._required(T_base_cam, "images", camera_frame)

    def _odometry_to_base(self, event: OdometryEvent) -> Matrix:
        child = event.child_frame_id or self._config.node.base_frame
        if normalized(event.frame_id) != normalized(self._config.node.odom_frame):
            # Harmless here, but the node would refuse it.
            self.counts[f"odom_in_frame_{event.frame_id}"] += 1
        T_child_base = self._transforms.lookup(child, self._config.node.base_frame)
        return self._required(T_child_base, "odometry", child)

    def _required(self, T: Matrix | None, what: str, frame: str) -> Matrix:
        if T is None:
            base, known = self._config.node.base_frame, ", ".join(self._transforms.frames) or "none"
            raise BagError(
                f"{what} of frame '{frame}' cannot be related to '{base}'; /tf_static has frames: "
                f"{known}. Set node.base_frame or node.camera_frame"
            )
        return T

    def _failed(self, stamp_ns: int, reason: Reason, message: str, name: str) -> Estimate:
        return Estimate(Status.FAILED, reason, message, stamp_ns, name)

    def _next_name(self) -> str:
        self._frames += 1
        return f"{self._frames - 1:06d}"


def _same(camera: Camera, other: Camera) -> bool:
    def values(c: Camera) -> list[list[float]]:
        return [c.size.tolist(), c.focal.tolist(), c.center.tolist(), c.distortion.tolist()]

    return camera.model == other.model and values(camera) == values(other)
