"""Play a rosbag2 over DDS at its recorded pace, for machines without `ros2 bag play`.

    bag_player BAG [--rate 0.5] [--clock] [--loop]

Messages are published as the bag stores them, without being decoded.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from pixloc_ros.errors import BagError, PixlocError
from pixloc_ros.msg import LocalizationState
from pixloc_ros.replay.storage import RawMessage, open_sources
from pixloc_ros.ros.executable import StopSignals
from pixloc_ros.ros.message_basics import message_class, time_message

_TICK_S = 0.01  # between two checks for a stop request
_CLOCK_PERIOD_S = 0.025  # between two /clock messages; each one wakes every node that listens
STOP_S = 1.8  # to shut down cleanly after a signal
_LINGER_S = 0.5  # for the last messages to leave
_TAKEN_S = 5.0  # at most, for reliable subscribers to acknowledge their messages
_SETTLED_S = 3.0  # after the newest subscription, no further ones are waited for

_NOT_ACTIVE = (
    LocalizationState.STATE_ERROR,
    LocalizationState.STATE_WAITING_MAP,
    LocalizationState.STATE_DISABLED,
)

Progress = Callable[[Iterable[RawMessage], int], Iterable[RawMessage]]


class BagPlayer(Node):
    """Publishes the messages of a bag whose types are installed; `skipped` names other topics."""

    def __init__(
        self, bag: Path, rate: float, clock: bool, stop: StopSignals, localizer: str = ""
    ) -> None:
        super().__init__("bag_player")
        self._stop = stop
        self._fault = ""  # why the localizer that is waited for cannot work
        self._active = not localizer  # whether that localizer is ready
        if localizer:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.create_subscription(
                LocalizationState, f"{localizer}/state", self._on_state, latched
            )
        self._sources = open_sources(bag)
        self._bag = bag
        self._rate = rate
        self._clock = self.create_publisher(Clock, "/clock", 10) if clock else None
        self._next_clock_s = 0.0  # by the monotonic clock
        self.skipped: dict[str, str] = {}
        self._publishers_of: dict[str, Publisher] = {}
        for topic, kind in sorted(self._types().items()):
            self._advertise(topic, kind)

    @property
    def count(self) -> int:
        """The number of messages to play."""
        return sum(sum(source.counts.values()) for source in self._sources)

    def wait_for_subscribers(self, timeout_s: float) -> list[str]:
        """Wait until the localizer is active and all topics have subscribers; return those without.

        A bag may hold many topics that nobody needs, so waiting ends a few seconds after the newest
        subscription. Raises BagError if no topic has a subscriber, or if the localizer reports that
        it cannot work or does not become active in time.
        """
        now_s = changed_s = time.monotonic()
        deadline_s, alone = now_s + timeout_s, self._without_subscribers()
        while (alone or not self._active) and now_s < deadline_s and not self._stop.requested:
            before = alone, self._active
            rclpy.spin_once(self, timeout_sec=_TICK_S)
            if self._fault:
                raise BagError(f"the localizer cannot work: {self._fault}")
            now_s, alone = time.monotonic(), self._without_subscribers()
            changed_s = changed_s if (alone, self._active) == before else now_s
            settled = self._active and now_s - changed_s > _SETTLED_S
            if settled and self._sensors_subscribed(alone):
                break
        if not self._stop.requested and not self._active:
            raise BagError(f"the localizer was not active within {timeout_s:g} s")
        if not self._stop.requested and len(alone) == len(self._publishers_of):
            raise BagError(f"nobody subscribed to {', '.join(alone)} within {timeout_s:g} s")
        return alone

    def play(self, progress: Progress = lambda messages, _: messages) -> None:
        """Publish all messages at the pace of recording times `rate`; a signal ends it early.

        Static transforms that come before all else are sent at once: some recorders stamp them with
        the time when the machine started, or with zero.
        """
        first_ns, start_s = None, time.monotonic()
        for message in progress(self._messages(), self.count):
            if first_ns is None and _is_static(message.topic):
                self._publishers_of[message.topic].publish(bytes(message.data))
                continue
            first_ns = message.log_ns if first_ns is None else first_ns
            due_s = start_s + (message.log_ns - first_ns) * 1e-9 / self._rate
            self._wait_until(due_s, message.log_ns)
            if self._stop.requested:
                return
            self._publishers_of[message.topic].publish(bytes(message.data))
        time.sleep(_LINGER_S)

    def wait_until_taken(self) -> None:
        """Wait until reliable subscribers have acknowledged everything.

        What they lack is lost when the publisher goes. DDS asks for acknowledgements only every few
        seconds.
        """
        end_s = time.monotonic() + _TAKEN_S
        for publisher in self._publishers_of.values():
            left_s = max(0.0, end_s - time.monotonic())
            publisher.wait_for_all_acked(Duration(seconds=left_s))

    def _on_state(self, message: LocalizationState) -> None:
        self._active = message.state not in _NOT_ACTIVE
        self._fault = message.message if message.state == message.STATE_ERROR else ""

    def _types(self) -> dict[str, str]:
        return {t: kind for source in self._sources for t, kind in source.types.items()}

    def _messages(self) -> Iterable[RawMessage]:
        for source in self._sources:
            yield from source.messages(set(self._publishers_of), None, None)

    def _advertise(self, topic: str, kind: str) -> None:
        try:
            message_type = message_class(kind)
        except (ImportError, AttributeError, ValueError):
            self.skipped[topic] = kind
            return
        static = _is_static(topic)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if static else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=100 if static else 10, durability=durability)
        self._publishers_of[topic] = self.create_publisher(message_type, topic, qos)

    def _without_subscribers(self) -> list[str]:
        publishers = self._publishers_of.items()
        return [topic for topic, p in publishers if not p.get_subscription_count()]

    def _sensors_subscribed(self, alone: list[str]) -> bool:
        """Return whether sensors, not only transforms, are subscribed to.

        RViz subscribes to transforms as soon as it starts.
        """
        heard = self._publishers_of.keys() - set(alone)
        return any(topic.rpartition("/")[2] not in ("tf", "tf_static") for topic in heard)

    def _wait_until(self, due_s: float, log_ns: int) -> None:
        """Sleep until the message is due, and publish /clock meanwhile."""
        while not self._stop.requested:
            left_s = max(0.0, due_s - time.monotonic())
            self._publish_clock(log_ns - round(left_s * self._rate * 1e9))
            if left_s <= 0.0:
                return
            time.sleep(min(left_s, _TICK_S))

    def _publish_clock(self, now_ns: int) -> None:
        """Publish /clock if it is wanted and its period is over."""
        now_s = time.monotonic()
        if self._clock is not None and now_s >= self._next_clock_s:
            self._next_clock_s = now_s + _CLOCK_PERIOD_S
            self._clock.publish(Clock(clock=time_message(now_ns)))


def _is_static(topic: str) -> bool:
    return topic.endswith("tf_static")


def main(stop: StopSignals, args: Sequence[str] | None = None) -> int:
    """Play a bag to the end, or until SIGINT or SIGTERM; return the exit status."""
    argv = list(sys.argv if args is None else args)
    options = _options(remove_ros_args(argv)[1:])
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    stop.grace_s = STOP_S
    try:
        player = BagPlayer(
            options.bag, options.rate, options.clock, stop, localizer=options.localizer
        )
        alone = player.wait_for_subscribers(options.timeout)
        for topic in () if stop.requested else alone:
            player.get_logger().warning(f"nobody subscribes to {topic}")
        player.play()
        while options.loop and not stop.requested:
            player.play()
        if not stop.requested:
            player.wait_until_taken()
    except PixlocError as error:
        print(f"bag_player: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.shutdown()
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bag_player", description="Play a rosbag2 at its pace.", epilog="bag_player drive"
    )
    parser.add_argument("bag", type=Path, help="folder or file of the bag")
    parser.add_argument("--rate", type=float, default=1.0, help="1: as recorded, 0.5: half as fast")
    parser.add_argument("--clock", action="store_true", help="publish /clock (for use_sim_time)")
    parser.add_argument("--loop", action="store_true", help="start again at the end of the bag")
    parser.add_argument(
        "--localizer", default="", help="full name of the localizer: waited for; its fault ends it"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds to wait for subscribers"
    )
    return parser.parse_args(argv)
