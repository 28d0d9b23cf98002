"""Publish the pose, the motion between frames, and the verdict on each frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.evaluation.frames import VERIFICATION_FIELDS
from pixloc_ros.geometry import se3
from pixloc_ros.msg import AlignmentStatus, LocalizationState
from pixloc_ros.ros import conversions
from pixloc_ros.ros.debug_outputs import DebugOutputs
from pixloc_ros.ros.motion_outputs import MotionOutputs
from pixloc_ros.ros.state import StateReport
from pixloc_ros.types import Estimate


class Outputs:
    """Publishes estimates, only while the node is active."""

    def __init__(self, node: LifecycleNode, config: ConfigHolder) -> None:
        self._node = node
        self._config = config
        self._pose = node.create_lifecycle_publisher(PoseWithCovarianceStamped, "~/pose", 10)
        self._plain_pose = node.create_lifecycle_publisher(PoseStamped, "~/pose_stamped", 10)
        self._status = node.create_lifecycle_publisher(AlignmentStatus, "~/status", 10)
        # Called with every accepted pose message, to publish it under AMCL's name as well.
        self.pose_listeners: list[Callable[[PoseWithCovarianceStamped], None]] = []
        self.motion = MotionOutputs(node, config)
        self.debug = DebugOutputs(node, config.current.node)

    def close(self) -> None:
        """Withdraw the topics."""
        self.motion.close()
        self.debug.close()
        for publisher in (self._pose, self._plain_pose, self._status):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish_pose(self, estimate: Estimate) -> None:
        """Publish `~/pose` at the stamp of the image, if the estimate was accepted.

        `~/pose_stamped` is the same without a covariance.
        """
        if estimate.T_map_base is None or estimate.covariance is None:
            return
        message = conversions.pose_message(
            estimate.T_map_base,
            estimate.covariance,
            estimate.stamp_ns,
            self._config.current.node.map_frame,
        )
        self._pose.publish(message)
        if self._plain_pose.get_subscription_count():
            self._plain_pose.publish(PoseStamped(header=message.header, pose=message.pose.pose))
        for take in self.pose_listeners:
            take(message)

    def publish_status(
        self, estimate: Estimate, camera_frame: str, latency_ms: float, dropped: int
    ) -> None:
        """Publish `~/status`."""
        message = status_message(estimate, self._config.current.node.map_frame)
        message.camera_frame = camera_frame
        message.frames_dropped = dropped
        message.latency_ms = latency_ms
        self._status.publish(message)


class HealthOutputs:
    """Publishes `~/state` and `/diagnostics` from the process's start, in any lifecycle state."""

    def __init__(self, node: LifecycleNode) -> None:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._state: Publisher = node.create_publisher(LocalizationState, "~/state", latched)
        self._report: Publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish_state(self, verdict: StateReport, stamp_ns: int) -> None:
        """Publish `~/state`, latched. Call it when the state or its reason changes."""
        self._state.publish(
            LocalizationState(
                header=conversions.header(stamp_ns, ""),
                state=verdict.state.value,
                reason=verdict.reason.value,
                message=verdict.message,
            )
        )

    def publish_report(self, message: DiagnosticArray) -> None:
        """Publish `/diagnostics`."""
        self._report.publish(message)


def status_message(estimate: Estimate, map_frame: str) -> AlignmentStatus:
    """Return an AlignmentStatus with everything that the estimate knows."""
    message = AlignmentStatus(
        header=conversions.header(estimate.stamp_ns, map_frame),
        localized=estimate.ok,
        status=estimate.status.value,
        reason=estimate.reason.value,
        message=estimate.message,
        cameras=list(estimate.cameras),
        keyframes=list(estimate.keyframes),
    )
    message.prior_offset_m = message.prior_offset_deg = float("nan")
    message.inlier_share = message.cost = message.condition = float("nan")
    _fill_prior(message, estimate)
    _fill_alignment(message, estimate)
    _fill_verification(message, estimate)
    _fill_stages(message, estimate.timing_ms)
    return message


def _fill_prior(message: AlignmentStatus, estimate: Estimate) -> None:
    if estimate.prior is None:
        return
    message.prior_source = estimate.prior.source
    if estimate.candidate_T_map_base is not None:
        T_prior, T_found = estimate.prior.T_map_base, estimate.candidate_T_map_base
        message.prior_offset_m = se3.distance_m(T_prior, T_found)
        message.prior_offset_deg = se3.angle_deg(T_prior, T_found)


def _fill_alignment(message: AlignmentStatus, estimate: Estimate) -> None:
    alignment = estimate.alignment
    if alignment is None:
        return
    message.converged = bool(alignment.converged)
    message.inlier_share = float(alignment.inlier_share)
    message.cost = float(alignment.cost)
    message.condition = float(np.float32(alignment.condition))
    message.points = len(alignment.points_map)
    message.hypotheses = alignment.hypotheses
    message.iterations = list(alignment.iterations)


def _fill_verification(message: AlignmentStatus, estimate: Estimate) -> None:
    evidence, level = estimate.evidence, estimate.protection_level
    message.wrong_probability = _float32(estimate.wrong_probability)
    message.protection_level_m = math.nan if level is None else level.error_m
    message.protection_risk = _float32(None if level is None else level.risk)
    message.ambiguity_m = math.nan if estimate.ambiguity_m is None else estimate.ambiguity_m
    for name in VERIFICATION_FIELDS:
        setattr(message, name, _float32(None if evidence is None else getattr(evidence, name)))


def _float32(value: float | None) -> float:
    """Return a value that fits float32: NaN if it is unknown, inf if it is too large."""
    return math.nan if value is None else float(np.float32(value))


def _fill_stages(message: AlignmentStatus, timing_ms: Mapping[str, float]) -> None:
    message.stages = list(timing_ms)
    message.stages_ms = [float(value) for value in timing_ms.values()]
