"""What happens to one image: decode, wait for odometry, prior, localize, remember, publish."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.config import Config
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.localizer import Localizer
from pixloc_ros.ros import conversions
from pixloc_ros.ros.cameras import CameraCalibration, ImageGroup
from pixloc_ros.ros.diagnostics import Counters, Rate
from pixloc_ros.ros.inputs import Inputs
from pixloc_ros.ros.outputs import Outputs
from pixloc_ros.ros.shared_tracker import SharedTracker
from pixloc_ros.sensors import conversion, decoding
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.frozen_images import FreezeWatch, frozen
from pixloc_ros.sensors.static_transforms import normalized
from pixloc_ros.types import Estimate, Frame, Reason, Status

_SHARE_OF = 20  # frames that the share of accepted ones is taken over


class NotReady(Exception):
    """A frame cannot be looked at yet: the reason and one line."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Pipeline:
    """Runs in the worker's thread."""

    def __init__(
        self,
        config: Config,
        localizer: Localizer,
        tracker: SharedTracker,
        inputs: Inputs,
        outputs: Outputs,
        tally: Counters,
        listener: Callable[[Estimate], None],
    ) -> None:
        self._config = config
        self._localizer = localizer
        self._tracker = tracker
        self._inputs = inputs
        self._outputs = outputs
        self._tally = tally
        self._listener = listener  # hears every verdict, after it was published
        self._closed = False
        self.latency_ms = Rate()
        self.last: Estimate | None = None
        self.missing: tuple[str, ...] = ()  # cameras of the rig without an image of the last moment
        self._freezes = FreezeWatch(config.node.frozen_image_distance_m)
        self.accepted_s: float | None = None  # time.perf_counter() of the last accepted pose
        self._verdicts: deque[bool] = deque(maxlen=_SHARE_OF)
        self._lock = threading.Lock()
        self._lives = 0  # goes up when what was found before is void

    def close(self) -> None:
        """Publish nothing any more: a frame that is still in work comes too late."""
        self._closed = True

    def reconfigure(self, config: Config) -> None:
        """Look at the next frames with other limits."""
        self._config = config

    def forget(self) -> None:
        """Judge the state by frames to come, and not by one that is in work."""
        with self._lock:
            self._lives += 1
            self.last = self.accepted_s = None
            self._verdicts.clear()

    @property
    def accepted_share(self) -> float:
        """Share of accepted frames among the last ones, from the first accepted one on."""
        verdicts = list(self._verdicts)
        return sum(verdicts) / len(verdicts) if verdicts else 1.0

    def process(self, arrival: ImageGroup) -> None:
        """Work on one image and publish what came of it."""
        watch, life, image_rgb = Stopwatch(), self._lives, None
        watch.timing_ms["queue"] = 1e3 * (time.perf_counter() - arrival.received_s)
        try:
            with watch("decode"):
                frames = self._frames(arrival)
        except BadMessage as error:
            estimate = _failed(arrival, Reason.BAD_IMAGE, str(error))
        except NotReady as error:
            estimate = _failed(arrival, error.reason, str(error))
        else:
            estimate = self._localize(frames, watch)
            image_rgb = _image_of_lead(frames, estimate)
        self._publish(replace(estimate, timing_ms=watch.timing_ms), arrival, life, image_rgb)

    def fail(self, arrival: ImageGroup, error: Exception) -> None:
        """An unforeseen exception: reported like any other outcome."""
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._publish(_failed(arrival, Reason.INTERNAL_ERROR, message), arrival, self._lives)

    def _localize(self, frames: Sequence[Frame], watch: Stopwatch) -> Estimate:
        newest_ns = max(frame.stamp_ns for frame in frames)
        with watch("odometry"):
            if not self._tracker.wait_ready(newest_ns, self._config.priors.odometry_wait_s):
                self._tally.add("odom.late")
        with self._tracker.locked() as tracker:
            usable = self._freezes.usable(frames, tracker)
            self.missing = self._missing(usable)
            if not usable:
                return tracker.update(frozen(frames[0]))
            lead, *beside = usable
            tracker.T_base_cam = lead.T_base_cam
            prior = tracker.prior(lead.stamp_ns)
            generation = tracker.generation
        estimate = self._localizer.localize(lead, prior, beside)
        watch.timing_ms.update(estimate.timing_ms)
        with self._tracker.locked() as tracker:
            if tracker.generation != generation:
                message = "the pose was set anew while this frame was in work"
                return estimate.rejected(Reason.SUPERSEDED, message)
            return tracker.update(estimate)

    def _missing(self, usable: Sequence[Frame]) -> tuple[str, ...]:
        """Cameras of the rig without an image of this moment."""
        there = {frame.camera_name for frame in usable}
        return tuple(name for name in self._inputs.cameras.names if name not in there)

    def _frames(self, arrival: ImageGroup) -> list[Frame]:
        """Of all cameras whose image can be used; raises what is wrong with the first if none.

        Calibration and extrinsics are waited for only where no camera has them: one of a rig that
        never gets any holds up no other.
        """
        frames, problems = self._frames_ready(arrival, wait_s=0.0)
        if not frames and any(isinstance(problem, NotReady) for problem in problems):
            wait_s = self._config.node.calibration_wait_s
            frames, problems = self._frames_ready(arrival, wait_s)
        for problem in problems:
            if isinstance(problem, BadMessage):
                self._inputs.refuse("image", problem)
        if not frames:
            raise problems[0]
        return frames

    def _frames_ready(
        self, arrival: ImageGroup, wait_s: float
    ) -> tuple[list[Frame], list[BadMessage | NotReady]]:
        """Of the cameras that have all they need, waiting so long for each; and why others not."""
        frames: list[Frame] = []
        problems: list[BadMessage | NotReady] = []
        for name, message in arrival.messages.items():
            try:
                frames.append(self._frame(name, message, wait_s))
            except (BadMessage, NotReady) as error:
                problems.append(error)
        return frames, problems

    def _frame(self, name: str, message: Any, wait_s: float) -> Frame:
        known = self._inputs.cameras.calibration(name, wait_s)
        if known is None:
            of = f" of camera {name}" if name else ""
            raise NotReady(Reason.NO_CAMERA_INFO, f"no usable message on camera_info yet{of}")
        stamp_ns = conversion.stamp_ns(message)
        _require_same_frame(message.header.frame_id, known.frame)
        T_base_cam = self._extrinsics(self._camera_frame(message, known), wait_s)
        size = known.camera.width, known.camera.height
        image_rgb = decoding.image_rgb(message, conversions.backend(), size)
        return Frame(image_rgb, known.camera, stamp_ns, T_base_cam, str(stamp_ns), name)

    def _camera_frame(self, message: Any, known: CameraCalibration | None) -> str:
        stated = self._config.node.camera_frame or message.header.frame_id
        return stated or (known.frame if known else "")

    def _extrinsics(self, camera_frame: str, wait_s: float) -> Matrix:
        """T_base_cam (4, 4); raises NotReady where /tf_static does not say."""
        base_frame = self._config.node.base_frame
        assumed = self._config.node.identity_extrinsics
        T_base_cam = self._inputs.wait_for(
            lambda: self._inputs.transform(base_frame, camera_frame),
            0.0 if assumed else wait_s,
        )
        if T_base_cam is None and assumed:
            return se3.base_from_optical()
        if T_base_cam is None:
            known = ", ".join(self._inputs.frames()) or "nothing yet"
            raise NotReady(
                Reason.NO_EXTRINSICS,
                f"/tf_static does not join '{base_frame}' to '{camera_frame}'; it has {known}",
            )
        return T_base_cam

    def _publish(
        self,
        estimate: Estimate,
        arrival: ImageGroup,
        life: int,
        image_rgb: NDArray[np.uint8] | None = None,
    ) -> None:
        if self._closed:
            return
        lead_name = next(iter(estimate.cameras or arrival.messages))
        known = self._inputs.cameras.calibration(lead_name, timeout_s=0.0)
        camera_frame = self._camera_frame(arrival.messages[lead_name], known)
        self._outputs.publish_pose(estimate)
        if estimate.ok:
            self._outputs.motion.publish(self._tracker)
        dropped = self._tally["image.dropped"]
        latency_ms = self._outputs.publish_status(
            estimate, camera_frame, arrival.received_s, dropped
        )
        self.latency_ms.add(time.perf_counter(), latency_ms)
        self._tally.add(f"frame.{estimate.reason.value}")
        with self._lock:
            if life == self._lives:
                self._remember(estimate)
        self._listener(estimate)
        self._outputs.debug.publish(estimate, image_rgb)

    def _remember(self, estimate: Estimate) -> None:
        self.last = estimate
        if estimate.ok:
            self._outputs.motion.extend_path(estimate)
            self.accepted_s = time.perf_counter()
        if self.accepted_s is not None:
            self._verdicts.append(estimate.ok)


def _require_same_frame(image_frame: str, info_frame: str) -> None:
    if info_frame and image_frame and normalized(image_frame) != info_frame:
        raise BadMessage(
            "frame", f"image is of frame '{image_frame}', camera_info of '{info_frame}'"
        )


def _image_of_lead(frames: Sequence[Frame], estimate: Estimate) -> NDArray[np.uint8]:
    """The image that the estimate's pixels are of."""
    by_name = {frame.camera_name: frame.image_rgb for frame in frames}
    return by_name[next(iter(estimate.cameras), frames[0].camera_name)]


def _failed(arrival: ImageGroup, reason: Reason, message: str) -> Estimate:
    stamp_ns = decoding.stamp_ns(arrival.lead.header)
    return Estimate(Status.FAILED, reason, message, stamp_ns, str(stamp_ns))
