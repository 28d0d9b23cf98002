"""Convert poses between frames of the vehicle and its surroundings, by /tf_static and /tf."""

from __future__ import annotations

from collections.abc import Callable

from pixloc_ros.config import NodeConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import (
    OdometryEvent,
    PoseEvent,
    StampedTransform,
    StaticTransformsEvent,
    TransformsEvent,
)
from pixloc_ros.sensors.moving_transforms import MovingTransforms
from pixloc_ros.sensors.static_transforms import StaticTransforms, normalized

CHANGE_M, CHANGE_DEG = 1e-4, 0.01  # less is rounding


class VehicleFrames:
    """Converts what messages state in their own frames to the vehicle's base and to the map."""

    def __init__(self, on_refused: Callable[[BadMessage], None]) -> None:
        self._on_refused = on_refused  # called for /tf messages that cannot be decoded
        self._static = StaticTransforms()
        self._moving = MovingTransforms(self._static)
        self._followed_ns: int | None = None

    def add_static(self, event: StaticTransformsEvent) -> list[str]:
        """Take transforms of /tf_static; return a line about each that has changed."""
        changes = []
        for each in event.transforms:
            before = self._static.around(normalized(each.parent)).get(normalized(each.child))
            added = self._static.add(each.parent, each.child, each.T_parent_child)
            if added and before is not None and (change := _change(before, each)):
                changes.append(change)
        return changes

    def add_moving(self, event: TransformsEvent) -> None:
        """Take a message of /tf, undecoded."""
        self._moving.add_later(event)

    @property
    def fixed_frames(self) -> str:
        """The frames of /tf_static, as text for messages."""
        return ", ".join(self._static.frames) or "nothing yet"

    def lookup_static(self, target: str, source: str) -> Matrix | None:
        """Return T_target_source (4, 4) along /tf_static; None if nothing joins the frames."""
        return self._static.lookup(target, source)

    def camera_mounting(self, camera_frame: str, config: NodeConfig) -> Matrix | None:
        """Return T_base_cam (4, 4): as configured, or along /tf_static; None if unknown."""
        if any(config.camera_mounting):
            return se3.from_quat_xyzw(config.camera_mounting[3:], config.camera_mounting[:3])
        T_base_cam = self._static.lookup(config.base_frame, camera_frame)
        if T_base_cam is None and config.identity_extrinsics:
            return se3.base_from_optical()
        return T_base_cam

    def mounting_source(self, camera_frame: str, config: NodeConfig) -> str:
        """Describe where `camera_mounting` comes from, or what is missing."""
        frames = f"'{config.base_frame}' to '{camera_frame}'"
        if any(config.camera_mounting):
            return "node.camera_mounting is set and replaces /tf_static"
        if self._static.lookup(config.base_frame, camera_frame) is not None:
            return f"/tf_static joins {frames}"
        if config.identity_extrinsics:
            return f"/tf_static does not join {frames}; node.identity_extrinsics stands in for it"
        return f"/tf_static does not join {frames}"

    def no_mounting(self, camera_frame: str, config: NodeConfig) -> str:
        """Describe why `camera_mounting` knows nothing, and the remedy."""
        frames = f"'{config.base_frame}' to '{camera_frame}'"
        if not self._static.frames:
            return (
                f"nothing has come on /tf_static, which has to join {frames}: publish and record "
                "it, or set node.camera_mounting"
            )
        return (
            f"/tf_static does not join {frames}; it has {self.fixed_frames}. Set node.base_frame, "
            "node.camera_frame or node.camera_mounting"
        )

    def odometry_of_base(self, event: OdometryEvent, config: NodeConfig) -> Matrix:
        """Return T_odom_base (4, 4) of a message. Raises BadMessage if its frames are unknown."""
        if normalized(event.frame_id) != normalized(config.odom_frame):
            raise BadMessage(
                "frame",
                f"odometry is in frame '{event.frame_id}', expected '{config.odom_frame}': "
                "set node.odom_frame",
            )
        child = event.child_frame_id or config.base_frame
        T_child_base = self._static.lookup(child, config.base_frame)
        if T_child_base is None:
            raise BadMessage(
                "frame",
                f"odometry has child frame '{child}', which nothing on /tf_static joins to "
                f"base_frame '{config.base_frame}'",
            )
        return event.T_odom_child @ T_child_base

    def odometry_on_tf(self, config: NodeConfig) -> tuple[int, Matrix] | None:
        """Return stamp and T_odom_base (4, 4) if /tf has something new; None otherwise."""
        self._read(config)
        frames = config.odom_frame, config.base_frame
        newest_ns = self._moving.newest_ns(*frames)
        if newest_ns is None or newest_ns == self._followed_ns:
            return None
        T_odom_base = self._moving.lookup(*frames, newest_ns)
        if T_odom_base is None:
            return None
        self._followed_ns = newest_ns
        return newest_ns, T_odom_base

    def pose_in_map(
        self, event: PoseEvent, config: NodeConfig, T_map_own: Matrix | None
    ) -> PoseEvent:
        """Convert a pose to the map frame, from any frame that /tf joins to it at that time.

        T_map_own: the transform that the localizer itself publishes (see `own_frame`), at the stamp
        of the pose; None while it publishes none. Raises BadMessage for a frame that is not joined.
        """
        map_frame, frame = config.map_frame, event.frame_id
        if normalized(frame) == normalized(map_frame):
            return event
        self._read(config)
        if T_map_own is not None:
            own = StampedTransform(event.stamp_ns, map_frame, own_frame(config), T_map_own)
            self._moving.pin(own)
        T_map_frame = self._moving.lookup(map_frame, frame, event.stamp_ns)
        if T_map_frame is None:
            known = ", ".join(self._moving.frames) or "nothing yet"
            raise BadMessage(
                "frame",
                f"the pose is in frame '{frame}', which /tf does not join to '{map_frame}' at its "
                f"stamp; there are {known}",
            )
        return event.in_frame(map_frame, T_map_frame)

    def _read(self, config: NodeConfig) -> None:
        """Decode what came on /tf, except for what the localizer itself publishes."""
        for refused in self._moving.read(config.map_frame, own_frame(config)):
            self._on_refused(refused)


def _change(T_before: Matrix, now: StampedTransform) -> str:
    """Describe how a transform that should be static has moved; empty if it has not."""
    moved_m = se3.distance_m(T_before, now.T_parent_child)
    turned_deg = se3.angle_deg(T_before, now.T_parent_child)
    if moved_m < CHANGE_M and turned_deg < CHANGE_DEG:
        return ""
    return (
        f"'{now.child}' in '{now.parent}' has moved by {moved_m:.2f} m and {turned_deg:.1f} deg; "
        "from now on it is there"
    )


def own_frame(config: NodeConfig) -> str:
    """Return the frame that the localizer publishes as a child of the map; empty if none."""
    return {"map_odom": config.odom_frame, "map_base": config.base_frame}.get(config.tf_mode, "")
