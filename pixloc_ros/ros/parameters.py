"""ROS parameters: every field of the configuration under its dotted name, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from pixloc_ros.config import LIVE, Config, flatten, from_flat, setting
from pixloc_ros.errors import ConfigError

# Parameters that rclpy itself declares or understands.
_OF_ROS = ("use_sim_time", "start_type_description_service")
_DOUBLES = {Parameter.Type.INTEGER: Parameter.Type.DOUBLE}
_DOUBLES |= {Parameter.Type.INTEGER_ARRAY: Parameter.Type.DOUBLE_ARRAY}


def declare(node: Node) -> None:
    """Declare all parameters with defaults, descriptions and ranges; integers do for doubles.

    The node was made with `automatically_declare_parameters_from_overrides`: values given by a
    launch file are there already, and so are unknown ones, which `read` refuses. A value that
    cannot be keeps its place until it is corrected; `read` refuses it in one line.
    """
    for name, default in flatten(Config()):
        value, descriptor = _plain(default), _descriptor(name, _plain(default))
        if node.has_parameter(name):
            value = _like(value, _plain(node.get_parameter(name).value))
            descriptor.dynamic_typing = type(value) is not type(_plain(default))
            node.undeclare_parameter(name)
        try:
            node.declare_parameter(name, value, descriptor, ignore_override=True)
        except InvalidParameterValueException:  # out of range
            anything = ParameterDescriptor(dynamic_typing=True)
            node.declare_parameter(name, value, anything, ignore_override=True)
    node.add_pre_set_parameters_callback(lambda given: [_as_declared(node, p) for p in given])


def read(node: Node) -> Config:
    """Read the configuration.

    Raises ConfigError for bad values, unknown names (with the nearest) and `qos_overrides`.
    """
    parameters = node.get_parameters_by_prefix("")
    given = {name: p for name, p in parameters.items() if not name.startswith(_OF_ROS)}
    for name in given:
        if name.startswith("qos_overrides."):
            raise ConfigError(
                f"parameter '{name}' cannot be used: the qualities of service of this node are "
                "fixed, docs/guide/node.md lists them; remove it"
            )
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


def _descriptor(name: str, value: Any) -> ParameterDescriptor:
    """What `ros2 param describe` shows, and rclpy checks."""
    about = setting(name)
    descriptor = ParameterDescriptor(description=about.description)
    if about.choices:
        descriptor.additional_constraints = f"one of: {about.allowed}"
    if about.low is not None and about.high is not None:
        if isinstance(value, int):
            limits = IntegerRange(from_value=int(about.low), to_value=int(about.high))
            descriptor.integer_range = [limits]
        elif isinstance(value, float):
            limits = FloatingPointRange(from_value=float(about.low), to_value=float(about.high))
            descriptor.floating_point_range = [limits]
        else:
            descriptor.additional_constraints = f"each {about.allowed}"
    return descriptor


def _as_declared(node: Node, parameter: Parameter) -> Parameter:
    """The parameter with integers as doubles where doubles are declared: `param set ... 7`."""
    wanted = _DOUBLES.get(parameter.type_)
    if wanted is None or not node.has_parameter(parameter.name):
        return parameter
    if node.describe_parameter(parameter.name).type != wanted.value:
        return parameter
    default = [0.0] if wanted is Parameter.Type.DOUBLE_ARRAY else 0.0
    return Parameter(parameter.name, wanted, _like(default, _plain(parameter.value)))


def _like(default: Any, value: Any) -> Any:
    """A value with integers as doubles where the default has doubles."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list) and isinstance(value, list) and default:
        return [_like(default[0], each) for each in value]
    return value


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists, the only sequences that ROS parameters and YAML share."""
    return value if isinstance(value, str | int | float | bool) else list(value)
