"""Use a running localizer node from your own program.

    python examples/node_client.py                 # prints poses and reasons
    python examples/node_client.py --relocalize    # first makes the node forget its pose

Source the workspace first; the localizer node must be running.
"""

from __future__ import annotations

import argparse

import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node

from pixloc_ros.msg import AlignmentStatus
from pixloc_ros.srv import Relocalize


class LocalizationClient(Node):
    """Prints what the localizer publishes about each frame."""

    def __init__(self, localizer: str) -> None:
        super().__init__("localization_client")
        # A status for every frame, localized or not, and a pose for every localized frame.
        self.create_subscription(AlignmentStatus, f"{localizer}/status", self.on_status, 10)
        self.create_subscription(PoseWithCovarianceStamped, f"{localizer}/pose", self.on_pose, 10)
        self._relocalize = self.create_client(Relocalize, f"{localizer}/relocalize")
        self.poses = 0

    def on_status(self, status: AlignmentStatus) -> None:
        if not status.localized:
            # Programs compare `reason` with AlignmentStatus.REASON_*; `message` is for people.
            print(f"not localized, {status.reason}: {status.message}", flush=True)

    def on_pose(self, pose: PoseWithCovarianceStamped) -> None:
        self.poses += 1
        position = pose.pose.pose.position
        sigma_m = max(pose.pose.covariance[i * 7] for i in range(3)) ** 0.5
        print(f"{position.x:.3f} {position.y:.3f} {position.z:.3f} +- {sigma_m:.3f} m", flush=True)

    def relocalize(self) -> None:
        """Make the node forget its pose; wait until it accepts a frame or gives up."""
        if not self._relocalize.wait_for_service(10.0):
            raise SystemExit(f"no service {self._relocalize.srv_name}: is the node running?")
        # With use_hint the search begins at the hint, otherwise at a pose from GNSS or at keyframes
        # that look like the image.
        future = self._relocalize.call_async(Relocalize.Request(use_hint=False, timeout_s=20.0))
        rclpy.spin_until_future_complete(self, future)
        answer = future.result()
        print(f"relocalized: {answer.success} ({answer.code}) {answer.message}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--localizer", default="/pixloc_localizer", help="name of the node")
    parser.add_argument("--relocalize", action="store_true")
    parser.add_argument("--poses", type=int, default=0, help="stop after N poses; 0: never")
    arguments = parser.parse_args()
    rclpy.init()
    client = LocalizationClient(arguments.localizer)
    try:
        if arguments.relocalize:
            client.relocalize()
        while not arguments.poses or client.poses < arguments.poses:
            rclpy.spin_once(client, timeout_sec=1.0)
    except KeyboardInterrupt:
        pass
    finally:
        client.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
