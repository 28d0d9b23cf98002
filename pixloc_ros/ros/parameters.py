"""ROS parameters: every field of the configuration under its dotted name, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from pixloc_ros.config import LIVE, Config, describe, flatten, from_flat
from pixloc_ros.errors import ConfigError

# Parameters that rclpy itself declares or understands.
_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def declare(node: Node) -> None:
    """Declare all parameters with their defaults and descriptions.

    The node was made with `automatically_declare_parameters_from_overrides`: values given by a
    launch file are there already, and so are unknown ones, which `read` refuses. It also lets
    `5` stand for `5.0`.
    """
    for name, default in flatten(Config()):
        descriptor = ParameterDescriptor(description=describe(name))
        if node.has_parameter(name):
            descriptor.type = node.get_parameter(name).type_.value
            node.set_descriptor(name, descriptor)
        else:
            node.declare_parameter(name, _plain(default), descriptor)


def read(node: Node) -> Config:
    """The configuration; raises ConfigError for bad values and unknown names (with the nearest)."""
    parameters = node.get_parameters_by_prefix("")
    given = {name: p for name, p in parameters.items() if not name.startswith(_OF_ROS)}
    return from_flat({name: _plain(p.value) for name, p in given.items()})


def with_changes(config: Config, changed: Sequence[Parameter]) -> Config:
    """The configuration after a change while it is in use.

    Raises ConfigError for values that cannot be, and where a restart would be needed: better a
    refusal than a change without effect.
    """
    before = dict(flatten(config))
    wanted = {p.name: _plain(p.value) for p in changed if not p.name.startswith(_OF_ROS)}
    after = from_flat({**before, **wanted})
    for name, value in flatten(after):
        if value != before[name] and not name.startswith(LIVE):
            raise ConfigError(
                f"'{name}' is read when the node is configured: deactivate, clean up, set it and "
                f"configure again. While it runs, {', '.join(LIVE)} can be set"
            )
    return after


class LiveParameters:
    """Lets the parameters of a configured node change where `LIVE` allows it."""

    def __init__(self, node: Node, config: Callable[[], Config], apply: Callable[[Config], None]):
        self._node = node
        self._config = config
        self._apply = apply
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(self._adopt)

    def close(self) -> None:
        """Nobody judges changes any more: the next configuration will."""
        self._node.remove_on_set_parameters_callback(self._judge)
        self._node.remove_post_set_parameters_callback(self._adopt)

    def _judge(self, changed: list[Parameter]) -> SetParametersResult:
        try:
            with_changes(self._config(), changed)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _adopt(self, changed: list[Parameter]) -> None:
        config = with_changes(self._config(), changed)
        if config != self._config():
            self._apply(config)


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists, the only sequences that ROS parameters and YAML share."""
    return value if isinstance(value, str | int | float | bool) else list(value)
