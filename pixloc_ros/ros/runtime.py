"""All that exists only while the node is active: inputs, session, worker, TF timer."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.timer import Timer

from pixloc_ros.config import Config
from pixloc_ros.errors import ConfigError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.session_folder import SessionHeader, SessionStore
from pixloc_ros.maps.map import Map
from pixloc_ros.priors.last_pose import LastPoseFile
from pixloc_ros.ros.inputs import Inputs, now_ns
from pixloc_ros.ros.live_session import LiveSession
from pixloc_ros.ros.mounting_check import MOUNTING, MountingCheck
from pixloc_ros.ros.outputs import Outputs
from pixloc_ros.ros.recent_frames import RecentFrames
from pixloc_ros.ros.relocalization import Relocalization
from pixloc_ros.ros.session_recorder import SessionRecorder
from pixloc_ros.ros.state import NodeStatus
from pixloc_ros.sensors import conversion
from pixloc_ros.sensors.counters import Counters
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import Event, OdometryEvent, PoseEvent, RefusedMessage
from pixloc_ros.session import Answer, Session
from pixloc_ros.types import Reason
from pixloc_ros.warm_up import warm_up


class NodeRuntime:
    """Runs from activation to deactivation; nothing of it outlives `close`.

    calibrations: of the cameras without a camera_info topic.
    """

    def __init__(
        self,
        node: LifecycleNode,
        localizer: Localizer,
        outputs: Outputs,
        calibrations: Mapping[str, Camera],
    ) -> None:
        self._node = node
        self._config = config = localizer.holder
        self._outputs = outputs
        self._map = localizer.map
        outputs.motion.begin_anew()
        localizer.map.tiles.never_wait()
        outputs.debug.show_map(localizer.map)
        self._closed = False
        self._relocalization: Relocalization | None = None
        self._frames = RecentFrames()
        self._mounting = MountingCheck(self._warn_of_mounting)
        session = Session(localizer, Counters(self._warn))
        self._last_pose = _last_pose_file(node, config.current, localizer.map.sha256)
        if self._last_pose and (T_map_base := self._last_pose.recall()) is not None:
            session.tracker.remember(T_map_base)
        self._live = LiveSession(session, self._on_answer, partial(warm_up, localizer))
        self._recorder = self._session_recorder(localizer.map)
        watch = outputs.motion.watch.take
        self._inputs = Inputs(node, config.current.node, calibrations, self._push, watch)
        self._timer = self._tick_at(config.current.node.tf_rate_hz)
        self._live.start()

    def close(self) -> bool:
        """Stop subscriptions and worker; return False if the current frame did not end in time."""
        self.interrupt("the node was deactivated or got another map")
        self._closed = True
        self._inputs.close()
        self._node.destroy_timer(self._timer)
        stopped = self._live.stop()
        if self._recorder:
            self._recorder.close()
        if self._last_pose:
            self._last_pose.save()
        return stopped

    def follow_rates(self) -> None:
        """Adopt the rates of the current configuration."""
        self._node.destroy_timer(self._timer)
        self._timer = self._tick_at(self._config.current.node.tf_rate_hz)

    @property
    def enabled(self) -> bool:
        """Whether images are processed."""
        with self._live.locked() as session:
            return session.intake.enabled

    def enable(self, enabled: bool) -> None:
        """Process images, or ignore them; everything else continues."""
        with self._live.locked() as session:
            session.intake.enabled = enabled
        if not enabled:
            self.interrupt("the node was disabled")

    def reset(self) -> None:
        """Forget poses, odometry and fixes, as after activation."""
        with self._live.locked() as session:
            session.reset()
            self._frames.forget(session.tracker.generation)
        self._outputs.motion.begin_anew()

    @property
    def relocalizing(self) -> bool:
        """Whether a relocalization is under way."""
        attempt = self._relocalization
        return attempt is not None and attempt.pending

    def relocalize(
        self, hint: PoseWithCovarianceStamped | None, timeout_s: float
    ) -> Relocalization:
        """Start a relocalization. Raises BadMessage for an unusable hint."""
        with self._live.locked() as session:
            if hint is None:
                session.tracker.forget_pose()
            else:
                session.intake.poses.take_from_caller(self._hinted(hint))
            session.counters.add("relocalization.begun")
            self._frames.forget(session.tracker.generation)
        self._relocalization = Relocalization(timeout_s)
        return self._relocalization

    def interrupt(self, why: str) -> None:
        """End a pending relocalization, with the reason for its caller."""
        if self._relocalization is not None:
            self._relocalization.interrupt(why)

    def stamped_now(self, pose: PoseWithCovarianceStamped) -> PoseEvent:
        """Convert a pose to an event; a pose without a stamp gets that of the newest data.

        Raises BadMessage for an unusable pose.
        """
        event = self._hinted(pose)
        with self._live.locked() as session:
            return session.intake.poses.timed(event)

    def go_on(self, before: NodeRuntime, pose: PoseEvent) -> None:
        """Start from a pose in this map, with the odometry received on the previous map."""
        with before._live.locked() as session:
            tracker = session.tracker
        with self._live.locked() as session:
            session.tracker.take_over_odometry(tracker)
            session.intake.poses.take_from_caller(pose)

    def status(self) -> NodeStatus:
        """The values from which the state of the node is judged."""
        now_s, frames = time.perf_counter(), self._frames
        last = frames.last
        return NodeStatus(
            map_loaded=True,
            enabled=self.enabled,
            image_age_s=_age_s(now_s, self._inputs.last_image_s),
            reason=last.reason if last else None,
            message=last.message if last else "",
            accepted_age_s=_age_s(now_s, frames.accepted_s),
            accepted_share=frames.accepted_share,
            odometry_stopped=self._odometry_stopped(),
            odometry_refused=self._odometry_refused(),
            cameras_missing=frames.cameras_missing,
            tiles_missing=self._map.tiles.missing_note,
        )

    def lines(self) -> list[tuple[str, str]]:
        """Rates, latencies and counters for the diagnostics."""
        now_s, last, latency_ms = time.perf_counter(), self._frames.last, self._frames.latency_ms
        with self._live.locked() as session:
            counts = session.counters.lines()
            rejected = sorted(session.tracker.rejected.items())
        return [
            ("reason", last.reason.value if last else ""),
            ("other publisher of the transform", self._outputs.motion.watch.finding or "none"),
            ("prior", last.prior.source if last and last.prior else "none"),
            (MOUNTING, self._mounting.finding),
            *(
                (f"image rate {name}".rstrip() + " [Hz]", f"{rate.hz(now_s):.2f}")
                for name, rate in self._inputs.image_rates.items()
            ),
            ("processed rate [Hz]", f"{latency_ms.hz(now_s):.2f}"),
            ("latency p50 [ms]", f"{latency_ms.percentile(50):.1f}"),
            ("latency p95 [ms]", f"{latency_ms.percentile(95):.1f}"),
            *((f"count {name}", line) for name, line in counts),
            *((f"count prior.rejected.{name}", str(count)) for name, count in rejected),
        ]

    def _hinted(self, hint: PoseWithCovarianceStamped) -> PoseEvent:
        """Convert a hint to an external pose. Raises BadMessage if it is unusable."""
        event = conversion.event_of("initialpose", hint, now_ns(self._node))
        if isinstance(event, RefusedMessage):
            raise BadMessage(event.reason, event.message)
        assert isinstance(event, PoseEvent)
        return event

    def _odometry_stopped(self) -> bool:
        last = self._frames.last
        with self._live.locked() as session:
            was_there = session.tracker.odometry.stamp_ns is not None
        return was_there and bool(last and last.prior and last.prior.source == "motion")

    def _odometry_refused(self) -> str:
        with self._live.locked() as session:
            none_yet = session.tracker.odometry.stamp_ns is None
            return session.counters.last_line("odom.bad.") if none_yet else ""

    def _push(self, event: Event) -> None:
        self._live.push(event)
        if isinstance(event, OdometryEvent) and self._config.current.node.odometry_at_full_rate:
            self._outputs.motion.publish_odometry(self._live)

    def _tick_at(self, rate_hz: float) -> Timer:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        return self._node.create_timer(1.0 / rate_hz, self._tick, clock=steady)

    def _tick(self) -> None:
        self._outputs.motion.publish(self._live)
        self._outputs.debug.offer_map()
        self._inputs.change_to_published()
        if self._relocalization is not None:
            self._relocalization.expire()

    def _session_recorder(self, map_: Map) -> SessionRecorder | None:
        config = self._config.current.node
        if not config.record_sessions:
            return None
        root = sessions_folder(self._node, self._config.current)
        store = SessionStore(root, round(1e6 * config.sessions_max_mb))
        header, spacing_m = SessionHeader.of(map_), config.session_spacing_m
        return SessionRecorder(store, header, spacing_m, self._count)

    def _count(self, name: str, line: str) -> None:
        with self._live.locked() as session:
            session.counters.add(name, line)

    def _warn(self, name: str, line: str) -> None:
        """Log the first occurrence of each kind of trouble."""
        self._node.get_logger().warning(f"{name}: {line}")

    def _warn_of_mounting(self, complaint: str) -> None:
        """Log a complaint about the mounting. Called by a thread that may outlive this object."""
        if not self._closed and self._node.context.ok():
            self._warn(MOUNTING, f"{complaint}; see `pixloc calibrate`")

    def _on_answer(self, answer: Answer) -> None:
        """Publish the answer to a frame, unless the node is stopping. Called by the worker."""
        try:
            if not self._closed:
                self._publish(answer)
        except Exception as error:  # the worker must go on
            if not self._closed and self._node.context.ok():
                self._node.get_logger().error(f"not published: {error!r}")

    def _publish(self, answer: Answer) -> None:
        estimate = answer.estimate
        if estimate.reason is Reason.INTERNAL_ERROR:
            self._node.get_logger().error(f"frame failed: {estimate.message}")
        self._outputs.publish_pose(estimate)
        if estimate.ok:
            self._outputs.motion.publish(self._live)
        with self._live.locked() as session:
            dropped = session.counters["image.dropped"]
            self._mounting.consider(session.mounting)
        now_s = time.perf_counter()
        latency_ms = 1e3 * (now_s - answer.group.received_s)
        # Judged first, so that the node's state is never older than the published status.
        is_current = self._frames.add(answer, now_s, latency_ms)
        self._outputs.publish_status(estimate, answer.camera_frame, latency_ms, dropped)
        if is_current and estimate.ok:
            self._outputs.motion.extend_path(estimate)
        if self._last_pose:
            self._last_pose.keep(estimate)
        if self._recorder:
            self._recorder.offer(answer)
        if self._relocalization is not None:
            self._relocalization.watch(estimate)
        self._outputs.debug.publish(estimate, answer.image_rgb)


def _last_pose_file(node: LifecycleNode, config: Config, map_sha256: str) -> LastPoseFile | None:
    if not config.node.last_pose_file:
        return None
    path = _home(node) / Path(config.node.last_pose_file).expanduser()
    return LastPoseFile(path, map_sha256, node.get_logger().warning)


def sessions_folder(node: LifecycleNode, config: Config) -> Path:
    """Return the folder for recorded sessions. Raises ConfigError if it lies inside the map."""
    root = (_home(node) / Path(config.node.record_sessions).expanduser()).resolve()
    map_folder = Path(config.map).expanduser().resolve()
    if config.node.record_sessions and root.is_relative_to(map_folder):
        raise ConfigError(
            f"node.record_sessions '{root}' is in the folder of the map; name one elsewhere"
        )
    return root


def _home(node: LifecycleNode) -> Path:
    """Return the folder for the node's own files."""
    home = Path(os.environ.get("ROS_HOME") or Path.home() / ".ros")
    return home / node.get_fully_qualified_name().strip("/")


def _age_s(now_s: float, then_s: float | None) -> float | None:
    return None if then_s is None else now_s - then_s
