"""ROS parameters: each field of the configuration under its dotted name, and nothing else."""

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

# Parameters that rclpy itself declares or handles.
_OF_ROS = ("use_sim_time", "start_type_description_service")
_DOUBLES = {Parameter.Type.INTEGER: Parameter.Type.DOUBLE}
_DOUBLES |= {Parameter.Type.INTEGER_ARRAY: Parameter.Type.DOUBLE_ARRAY}


def declare(node: Node) -> None:
    """Declare all parameters with defaults, descriptions and ranges; doubles accept integers.

    The node must be created with `automatically_declare_parameters_from_overrides`: then the values
    of a launch file exist already, and so do unknown names. `read` refuses these, and values out of
    range, in one line; they stay until they are corrected.
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
    """Read the configuration from the node's parameters.

    Raises ConfigError for bad values, unknown names (naming the nearest one) and `qos_overrides`.
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
    """Return the configuration after a change while the node is configured.

    Raises ConfigError for invalid values, and for parameters that take effect only after a restart:
    a refusal is better than a change without effect.
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
    """Accepts changes of a configured node's parameters where `LIVE` allows them."""

    def __init__(self, node: Node, config: Callable[[], Config], apply: Callable[[Config], None]):
        self._node = node
        self._config = config
        self._apply = apply
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(self._adopt)

    def close(self) -> None:
        """Stop judging changes: the next configuration does."""
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
    """Describe a parameter for `ros2 param describe` and for rclpy's range check."""
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
    """Return the parameter; where doubles are declared, integers become doubles."""
    wanted = _DOUBLES.get(parameter.type_)
    if wanted is None or not node.has_parameter(parameter.name):
        return parameter
    if node.describe_parameter(parameter.name).type != wanted.value:
        return parameter
    default = [0.0] if wanted is Parameter.Type.DOUBLE_ARRAY else 0.0
    return Parameter(parameter.name, wanted, _like(default, _plain(parameter.value)))


def _like(default: Any, value: Any) -> Any:
    """Return a value, with integers made doubles if the default has doubles."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list) and isinstance(value, list) and default:
        return [_like(default[0], each) for each in value]
    return value


def _plain(value: Any) -> Any:
    """Turn tuples and arrays into lists, the only sequences that ROS parameters and YAML share."""
    return value if isinstance(value, str | int | float | bool) else list(value)
