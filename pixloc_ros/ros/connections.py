"""Topics without QoS events, and what replaces these: the connections are checked with each report.

By default rclpy waits for two events of each publisher and subscription, to warn of peers that
cannot connect. Its executor handles every one of them in Python whenever it wakes up: with two
dozen topics, a wake-up took three times as long as without them (docs/lab/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.publisher import Publisher
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo


class NodeWithoutEvents(LifecycleNode):
    """A lifecycle node whose publishers and subscriptions have no QoS events."""

    def create_publisher(self, *arguments: Any, **options: Any) -> Publisher:
        """Create a publisher, as in Node."""
        return super().create_publisher(*arguments, **_without_publisher_events(options))

    def create_lifecycle_publisher(self, *arguments: Any, **options: Any) -> LifecyclePublisher:
        """Create a publisher that is silent while the node is inactive, as in LifecycleNode."""
        return super().create_lifecycle_publisher(*arguments, **_without_publisher_events(options))

    def create_subscription(self, *arguments: Any, **options: Any) -> Subscription:
        """Create a subscription, as in Node."""
        events = SubscriptionEventCallbacks(use_default_callbacks=False)
        return super().create_subscription(*arguments, **{"event_callbacks": events, **options})


class Connections:
    """Counts the peers of each topic of a node, and names those that cannot connect."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._logged: set[str] = set()

    def lines(self) -> list[tuple[str, str]]:
        """Count, for each topic, the peers whose type and quality of service are compatible.

        Each peer that cannot connect is named here, and logged when it appears.
        """
        publishers = {
            f"publishers of {each.topic_name}": str(each.get_publisher_count())
            for each in self._node.subscriptions
        }
        subscribers = {
            f"subscribers of {each.topic_name}": str(each.get_subscription_count())
            for each in self._node.publishers
        }
        misfits = set(self._misfits())
        for line in sorted(misfits - self._logged):
            self._node.get_logger().warning(line)
        self._logged = misfits
        counts = sorted((publishers | subscribers).items())
        return [*counts, ("cannot connect", "; ".join(sorted(misfits)) or "none")]

    def _misfits(self) -> Iterator[str]:
        """Name each pair of a peer and this node that cannot connect, and why."""
        for topic in self._incomplete():
            for publisher in self._node.get_publishers_info_by_topic(topic):
                for subscription in self._node.get_subscriptions_info_by_topic(topic):
                    if self._is_ours(publisher) == self._is_ours(subscription):
                        continue
                    pair = f"{_full_name(publisher)} to {_full_name(subscription)}"
                    why = _misfit(publisher, subscription)
                    if why and "UNKNOWN" not in pair:  # a peer is discovered before its name is
                        yield f"nothing goes from {pair} on {topic}: {why}"

    def _incomplete(self) -> set[str]:
        """Return the topics on which there are more peers than are connected."""
        node = self._node
        heard = {
            each.topic_name
            for each in node.subscriptions
            if each.get_publisher_count() < node.count_publishers(each.topic_name)
        }
        return heard | {
            each.topic_name
            for each in node.publishers
            if each.get_subscription_count() < node.count_subscribers(each.topic_name)
        }

    def _is_ours(self, end: TopicEndpointInfo) -> bool:
        return _full_name(end) == self._node.get_fully_qualified_name()


def plain(why: str) -> str:
    """Strip the decoration from a message of rmw."""
    return why.removeprefix("ERROR: ").rstrip("; ").lower()


def _misfit(publisher: TopicEndpointInfo, subscription: TopicEndpointInfo) -> str:
    """Return why two ends of a topic cannot be connected; empty if they can."""
    if publisher.topic_type != subscription.topic_type:
        return f"{publisher.topic_type} is sent, {subscription.topic_type} expected"
    fits, why = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
    return f"quality of service: {plain(why)}" if fits == QoSCompatibility.ERROR else ""


def _full_name(end: TopicEndpointInfo) -> str:
    return f"{end.node_namespace.rstrip('/')}/{end.node_name}"


def _without_publisher_events(options: dict[str, Any]) -> dict[str, Any]:
    return {"event_callbacks": PublisherEventCallbacks(use_default_callbacks=False), **options}
