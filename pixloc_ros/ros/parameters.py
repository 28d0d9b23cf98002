"""ROS parameters: every field of the configuration under its dotted name, and no others."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from pixloc_ros.config import Config, describe, flatten, from_flat

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


def refuse_changes(changed: list[Parameter]) -> SetParametersResult:
    """For a configured node: better a refusal than a change without effect."""
    ours = [p.name for p in changed if not p.name.startswith(_OF_ROS)]
    if not ours:
        return SetParametersResult(successful=True)
    return SetParametersResult(
        successful=False,
        reason=f"'{ours[0]}' is read when the node is configured: deactivate and clean up first",
    )


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists, the only sequences that ROS parameters and YAML share."""
    return value if isinstance(value, str | int | float | bool) else list(value)
