"""The node `pixloc_localizer`: configures the core, runs it while active, and reports its state."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence

import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import ConfigError, PixlocError, one_line
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.cache import TileCache
from pixloc_ros.replay.calibration_file import read_calibrations
from pixloc_ros.ros import bond, parameters
from pixloc_ros.ros.amcl_interface import AmclInterface
from pixloc_ros.ros.connections import Connections, NodeWithoutEvents
from pixloc_ros.ros.executable import StopSignals
from pixloc_ros.ros.health import Health
from pixloc_ros.ros.outputs import Outputs
from pixloc_ros.ros.parameters import LiveParameters
from pixloc_ros.ros.runtime import NodeRuntime, sessions_folder
from pixloc_ros.ros.services import Services
from pixloc_ros.ros.state import NodeStatus
from pixloc_ros.sensors.events import PoseEvent

STOP_S = 1.8  # after a signal, to finish the current frame and to break the bond
ANSWER_S = 0.5  # of it, to answer waiting service calls
HEARD_S = 0.2  # of it, for the answer to arrive before the node is destroyed
GOODBYE_S = 0.5  # of it, for a lifecycle manager to hear that the bond ends
POLL_S = 0.1  # how soon it is noticed that all calls are answered
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class LocalizerNode(NodeWithoutEvents):
    """A lifecycle node: configuring it loads the map, activating it subscribes and publishes.

    An unusable configuration fails the transition with one line in the log and on /diagnostics;
    correct it and configure again.
    """

    def __init__(self) -> None:
        super().__init__("pixloc_localizer", automatically_declare_parameters_from_overrides=True)
        parameters.declare(self)
        self.config = ConfigHolder(Config())
        self.localizer: Localizer | None = None
        self.runtime: NodeRuntime | None = None
        self._fault = ""
        self._shut_down = False
        self._outputs: Outputs | None = None
        self._calibrations: dict[str, Camera] = {}  # from files
        self._live: LiveParameters | None = None
        self._bond: bond.Bond | None = None
        self._amcl: AmclInterface | None = None
        self._connections = Connections(self)
        self._health = Health(self, self)
        self._guard_transitions()
        self._served = Services(self)

    def start(self) -> None:
        """Configure and activate, unless the parameter `node.autostart` is false."""
        autostart = self.get_parameter("node.autostart").value
        if autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def answer_callers(self, executor: Executor) -> None:
        """Answer pending `~/relocalize` calls: the node is about to end."""
        if self.runtime is None or not self._served.waiting:
            return
        self.runtime.interrupt("the node is shutting down")
        end_s = time.monotonic() + ANSWER_S
        while self._served.waiting and time.monotonic() < end_s:
            executor.spin_once(POLL_S)
        time.sleep(HEARD_S)

    def close(self) -> None:
        """Stop subscriptions and worker, and tell the lifecycle manager."""
        self._stop()
        if self._bond is not None:
            self._bond.end()

    def wait_until_heard(self) -> None:
        """Give the lifecycle manager a moment to hear that the bond ends."""
        if self._bond is not None:
            self._bond.wait_until_heard(GOODBYE_S)

    def adopt(self, localizer: Localizer, pose: PoseEvent | None = None) -> None:
        """Switch to another map, without a pose or from a given pose in it."""
        assert self._outputs is not None
        before = self.runtime
        self._stop()
        self.config.replace(localizer.config)
        localizer.holder = self.config
        self.localizer = localizer
        if before is not None:
            self.runtime = NodeRuntime(self, localizer, self._outputs, self._calibrations)
            self.runtime.enable(before.enabled)
            if pose is not None:
                self.runtime.go_on(before, pose)

    def status(self) -> NodeStatus:
        """The values from which the state of the node is judged."""
        if self.runtime is not None:
            return self.runtime.status()
        loaded = self.localizer is not None
        return NodeStatus(self._shut_down, self._fault, map_loaded=loaded, active=False)

    def max_coast_s(self) -> float:
        """How long, in seconds, an accepted pose is carried on."""
        return self.config.current.priors.max_coast_s

    def lines(self) -> list[tuple[str, str]]:
        """Keys and values for the diagnostics."""
        runtime = self.runtime.lines() if self.runtime else []
        return [*self._about(), *runtime, *self._connections.lines()]

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters and load the map."""
        try:
            self._configure()
        except PixlocError as error:
            return self._refuse(str(error))
        except Exception as error:  # rclpy would swallow it silently
            self.get_logger().debug(traceback.format_exc())
            return self._refuse(f"{type(error).__name__}: {error}")
        self._live = LiveParameters(self, lambda: self.config.current, self._reconfigure)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start localizing and publishing."""
        assert self.localizer is not None
        assert self._outputs is not None
        self._fault = ""
        activated, before = super().on_activate(state), set(self.subscriptions)
        try:
            calibrations = self._calibrations
            self.runtime = NodeRuntime(self, self.localizer, self._outputs, calibrations)
        except Exception as error:  # as above
            self.get_logger().debug(traceback.format_exc())
            for subscription in set(self.subscriptions) - before:
                self.destroy_subscription(subscription)
            super().on_deactivate(state)
            return self._refuse(f"cannot be activated: {type(error).__name__}: {error}")
        if self.config.current.node.bond:
            self._bond = self._bond or bond.Bond(self)
            self._bond.begin()
        return activated

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop localizing; the map stays loaded."""
        self.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the map and the network."""
        self._forget()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop localizing, and release the map and the network."""
        self._shut_down = True
        self.close()
        self._forget()
        return super().on_shutdown(state)

    def _stop(self) -> None:
        runtime, self.runtime = self.runtime, None
        if runtime is not None and not runtime.close():
            self.get_logger().warning("gave up waiting for the current frame")

    def _guard_transitions(self) -> None:
        """Answer requests for transitions that are not allowed now; rclpy would end the node."""
        (service,) = (s for s in self.services if s.srv_type is ChangeState)
        change_state = service.callback

        def change_if_allowed(
            request: ChangeState.Request, response: ChangeState.Response
        ) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except RCLError:  # raised by the state machine, which has not moved
                asked = request.transition.label or request.transition.id
                _, state = self._state_machine.current_state
                self.get_logger().warning(f"transition {asked} is not allowed in state '{state}'")
                response.success = False
                return response

        service.callback = change_if_allowed

    def _configure(self) -> None:
        self._fault = ""
        config = parameters.read(self)
        self.config = ConfigHolder(config)
        if not config.map:
            raise ConfigError("parameter 'map' is empty: set it to the folder of a map, or its URL")
        sessions_folder(self, config)
        self._calibrations = read_calibrations(config.node)
        if config.node.bond:
            bond.require_messages()
        self.localizer = Localizer(self.config)
        self._outputs = Outputs(self, self.config)
        if config.node.amcl_interface:
            self._amcl = AmclInterface(self, self)
            self._outputs.pose_listeners.append(self._amcl.publish_pose)
        self._health.report_at(config.node.diagnostics_rate_hz)
        keyframes = len(self.localizer.map.keyframe_names)
        self.get_logger().info(f"map {config.map}: {keyframes} keyframes")

    def _reconfigure(self, config: Config) -> None:
        """Apply changed gates and rates while the node works."""
        self.config.replace(config)
        self._health.report_at(config.node.diagnostics_rate_hz)
        if self.runtime is not None:
            self.runtime.follow_rates()

    def _refuse(self, fault: str) -> TransitionCallbackReturn:
        self._fault = one_line(fault)
        self.get_logger().error(self._fault)
        return FAILURE

    def _forget(self) -> None:
        if self._outputs is not None:
            self._outputs.close()
        if self._live is not None:
            self._live.close()
        if self._amcl is not None:
            self._amcl.close()
        self._outputs = self.localizer = self._live = self._amcl = None

    def _about(self) -> list[tuple[str, str]]:
        if self.localizer is None:
            return []
        tiles = self.localizer.map.tiles
        refused = "; ".join(f"{name}: {why}" for name, why in tiles.refused.items())
        return [
            ("map", self.config.current.map),
            ("map sha256", self.localizer.map.sha256),
            ("map tiles open", f"{len(tiles.opened)} of {len(tiles)}, {tiles.bytes / 1e6:.0f} MB"),
            ("map tiles refused", refused or "none"),
            *_about_fetching(tiles),
            ("model", self.localizer.features.model_id),
            ("device", self.config.current.device),
        ]


def _about_fetching(tiles: TileCache) -> list[tuple[str, str]]:
    """Describe what was fetched, and what is missing, of a map behind a URL."""
    if (fetcher := tiles.fetcher) is None:
        return []
    return [
        ("map tiles fetched", f"{fetcher.fetched}, {fetcher.source.bytes_read / 1e6:.1f} MB"),
        ("map tiles missing", tiles.missing_note or "none"),
        ("map version at its URL", fetcher.source.newer or "this one, when last asked"),
    ]


def main(stop: StopSignals, args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit status, 1 if it cannot start."""
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        stop.grace_s = STOP_S
        node = LocalizerNode()
    except (RCLError, UnknownROSArgsError) as error:  # wrong ROS arguments or SROS 2 keys
        print(f"the node cannot start: {one_line(error)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    node.start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        # A timeout would be one more timer to create for each message; the timer that watches the
        # state (Health) runs at all times and lets the loop notice a signal within 0.1 s.
        while not stop.requested:
            executor.spin_once()
    finally:
        node.answer_callers(executor)
        node.close()
        node.wait_until_heard()
        node.destroy_node()
        rclpy.shutdown()
    return 0
