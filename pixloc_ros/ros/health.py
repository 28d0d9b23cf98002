"""Report how the node is: its state, latched, on every change, and diagnostics at a steady rate."""

from __future__ import annotations

from typing import Protocol

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.timer import Timer

from pixloc_ros.config import NodeConfig
from pixloc_ros.ros import diagnostics
from pixloc_ros.ros.outputs import HealthOutputs
from pixloc_ros.ros.state import NodeStatus, StateReport, judge

_WATCH_HZ = 10.0  # how often the state is judged


class StatusSource(Protocol):
    """What a node reports about itself."""

    def status(self) -> NodeStatus: ...
    def max_coast_s(self) -> float: ...
    def lines(self) -> list[tuple[str, str]]: ...


class Health:
    """Reports from the start of the process on, in every lifecycle state, by the wall clock."""

    def __init__(self, node: LifecycleNode, source: StatusSource) -> None:
        self._node = node
        self._source = source
        self._outputs = HealthOutputs(node)
        self._verdict: StateReport | None = None
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(1.0 / _WATCH_HZ, self.watch, clock=self._clock)
        self._timer: Timer | None = None
        self.report_at(NodeConfig().diagnostics_rate_hz)

    def report_at(self, rate_hz: float) -> None:
        """Publish diagnostics at this rate from now on."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._timer = self._node.create_timer(1.0 / rate_hz, self._report, clock=self._clock)

    def watch(self) -> StateReport:
        """Judge the state; log and publish it on `~/state` if it or its reason has changed."""
        before, verdict = self._verdict, judge(self._source.status(), self._source.max_coast_s())
        self._verdict = verdict
        if before is None or before.state is not verdict.state:
            self._node.get_logger().info(f"{verdict.state}: {verdict.message}")
        if before is None or (before.state, before.reason) != (verdict.state, verdict.reason):
            self._outputs.publish_state(verdict, self._now_ns())
        return verdict

    def _report(self) -> None:
        name = self._node.get_fully_qualified_name().lstrip("/")
        verdict, lines = self.watch(), self._source.lines()
        self._outputs.publish_report(diagnostics.report(name, self._now_ns(), verdict, lines))

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
