"""Everything that lives while the node is active: inputs, tracker, worker, TF timer."""

from __future__ import annotations

import os
import time
from pathlib import Path

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.timer import Timer

from pixloc_ros.config import Config
from pixloc_ros.localizer import Localizer
from pixloc_ros.priors.last_pose import LastPoseFile
from pixloc_ros.priors.tracker import PoseTracker
from pixloc_ros.ros.cameras import ImageGroup
from pixloc_ros.ros.diagnostics import Counters
from pixloc_ros.ros.inputs import Inputs
from pixloc_ros.ros.latest_item import LatestItem
from pixloc_ros.ros.outputs import Outputs
from pixloc_ros.ros.pipeline import Pipeline
from pixloc_ros.ros.relocalization import Relocalization
from pixloc_ros.ros.shared_tracker import SharedTracker
from pixloc_ros.ros.state import NodeStatus
from pixloc_ros.ros.worker import Worker
from pixloc_ros.types import Estimate


class NodeRuntime:
    """From activation to deactivation. Nothing of it outlives `close`."""

    def __init__(
        self, node: LifecycleNode, config: Config, localizer: Localizer, outputs: Outputs
    ) -> None:
        self._node = node
        self._outputs = outputs
        outputs.motion.begin_anew()
        outputs.debug.show_map(localizer.map)
        self._relocalization: Relocalization | None = None
        self._tally = Counters()
        tracker = PoseTracker(config.priors, localizer.map, can_search=localizer.can_search)
        self._last_pose = _last_pose_file(node, config, localizer.map.sha256)
        if self._last_pose and (T_map_base := self._last_pose.recall()) is not None:
            tracker.remember(T_map_base)
        self._tracker = SharedTracker(tracker)
        mailbox: LatestItem[ImageGroup] = LatestItem()
        self._inputs = Inputs(node, config, self._tracker, mailbox, self._tally)
        self._pipeline = Pipeline(
            config,
            localizer,
            self._tracker,
            self._inputs,
            outputs,
            self._tally,
            self._on_estimate,
        )
        self._worker = Worker(mailbox, self._pipeline.process, self._on_error)
        self._timer = self._tick_at(config.node.tf_rate_hz)
        self._worker.start()

    def close(self) -> bool:
        """Stop listening and working; False when the frame in work could not be waited for."""
        self._interrupt("the node was deactivated or got another map")
        self._pipeline.close()
        self._inputs.close()
        self._node.destroy_timer(self._timer)
        stopped = self._worker.stop()
        if self._last_pose:
            self._last_pose.save()
        return stopped

    def reconfigure(self, config: Config) -> None:
        """Go on with other gates and rates."""
        with self._tracker.locked() as tracker:
            tracker.reconfigure(config.priors)
        self._inputs.reconfigure(config)
        self._pipeline.reconfigure(config)
        self._node.destroy_timer(self._timer)
        self._timer = self._tick_at(config.node.tf_rate_hz)

    @property
    def enabled(self) -> bool:
        """Whether images are looked at."""
        return self._inputs.cameras.enabled

    def enable(self, enabled: bool) -> None:
        """Look at images, or ignore them; everything else goes on."""
        self._inputs.cameras.enabled = enabled
        if not enabled:
            self._interrupt("the node was disabled")

    def reset(self) -> None:
        """Forget poses, odometry and fixes, as after activation."""
        with self._tracker.locked() as tracker:
            tracker.reset()
        self._pipeline.forget()
        self._outputs.motion.begin_anew()

    @property
    def relocalizing(self) -> bool:
        attempt = self._relocalization
        return attempt is not None and attempt.pending

    def relocalize(
        self, hint: PoseWithCovarianceStamped | None, timeout_s: float
    ) -> Relocalization:
        """Begin to find the vehicle anew. Raises BadMessage for a hint that cannot be used."""
        if hint is not None:
            self._inputs.hint(hint, self._now_ns())
        else:
            with self._tracker.locked() as tracker:
                tracker.forget_pose()
        self._pipeline.forget()
        self._tally.add("relocalization.begun")
        self._relocalization = Relocalization(timeout_s)
        return self._relocalization

    def facts(self) -> NodeStatus:
        """What the state of the node is judged by."""
        now_s, last = time.perf_counter(), self._pipeline.last
        return NodeStatus(
            map_loaded=True,
            enabled=self.enabled,
            image_age_s=_age_s(now_s, self._inputs.cameras.last_s),
            reason=last.reason if last else None,
            message=last.message if last else "",
            accepted_age_s=_age_s(now_s, self._pipeline.accepted_s),
            accepted_share=self._pipeline.accepted_share,
            odometry_stopped=self._odometry_stopped(),
            cameras_missing=self._pipeline.missing,
        )

    def lines(self) -> list[tuple[str, str]]:
        """Rates, latencies and counters for the diagnostics."""
        now_s, pipeline = time.perf_counter(), self._pipeline
        last = pipeline.last
        with self._tracker.locked() as tracker:
            rejected = sorted(tracker.rejected.items())
        return [
            ("reason", last.reason.value if last else ""),
            ("other publisher of the transform", self._outputs.motion.intruder or "none"),
            ("prior", last.prior.source if last and last.prior else "none"),
            *(
                (f"image rate {name}".rstrip() + " [Hz]", f"{rate.hz(now_s):.2f}")
                for name, rate in self._inputs.cameras.rates.items()
            ),
            ("processed rate [Hz]", f"{pipeline.latency_ms.hz(now_s):.2f}"),
            ("latency p50 [ms]", f"{pipeline.latency_ms.percentile(50):.1f}"),
            ("latency p95 [ms]", f"{pipeline.latency_ms.percentile(95):.1f}"),
            *((f"count {name}", line) for name, line in self._tally.lines()),
            *((f"count prior.rejected.{name}", str(count)) for name, count in rejected),
        ]

    def _odometry_stopped(self) -> bool:
        last = self._pipeline.last
        with self._tracker.locked() as tracker:
            was_there = tracker.odometry_stamp_ns is not None
        return was_there and bool(last and last.prior and last.prior.source == "motion")

    def _tick_at(self, rate_hz: float) -> Timer:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        return self._node.create_timer(1.0 / rate_hz, self._tick, clock=steady)

    def _tick(self) -> None:
        self._outputs.motion.publish(self._tracker)
        self._outputs.debug.offer_map()
        self._inputs.cameras.look_for_images()
        if self._relocalization is not None:
            self._relocalization.expire()

    def _interrupt(self, why: str) -> None:
        if self._relocalization is not None:
            self._relocalization.interrupt(why)

    def _now_ns(self) -> int:
        """Stamp of the newest that came; the clock may not be that of the sensors."""
        with self._tracker.locked() as tracker:
            newest_ns = tracker.odometry_stamp_ns
        last = self._pipeline.last
        if newest_ns is None and last is not None:
            newest_ns = last.stamp_ns
        return self._node.get_clock().now().nanoseconds if newest_ns is None else newest_ns

    def _on_estimate(self, estimate: Estimate) -> None:
        if self._last_pose:
            self._last_pose.keep(estimate)
        if self._relocalization is not None:
            self._relocalization.watch(estimate)

    def _on_error(self, arrival: ImageGroup, error: Exception) -> None:
        if self._worker.stopping or not self._node.context.ok():
            return  # publishers are gone
        self._node.get_logger().error(f"frame failed: {error!r}")
        self._pipeline.fail(arrival, error)


def _last_pose_file(node: LifecycleNode, config: Config, map_sha256: str) -> LastPoseFile | None:
    name = config.node.last_pose_file
    if not name:
        return None
    home = Path(os.environ.get("ROS_HOME") or Path.home() / ".ros")
    path = home / node.get_fully_qualified_name().strip("/") / Path(name).expanduser()
    return LastPoseFile(path, map_sha256, node.get_logger().warning)


def _age_s(now_s: float, then_s: float | None) -> float | None:
    return None if then_s is None else now_s - then_s
