"""ROS parameters are the configuration: described, in range, and integers do for doubles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pixloc_ros.config import Config, flatten, flatten_mapping, setting
from pixloc_ros.errors import ConfigError

pytestmark = pytest.mark.ros


@contextmanager
def declared(**given: Any) -> Iterator[Any]:
    """A node with the parameters of the localizer, some `section__name=value` given at launch."""
    import rclpy
    from rclpy.context import Context
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from helpers.domains import own_domain
    from pixloc_ros.ros import parameters

    overrides = [Parameter(n.replace("__", "."), value=v) for n, v in given.items()]
    context = Context()
    with own_domain() as domain:
        rclpy.init(context=context, domain_id=domain)
        node = Node(
            "test_parameters",
            context=context,
            parameter_overrides=overrides,
            automatically_declare_parameters_from_overrides=True,
        )
        try:
            parameters.declare(node)
            yield node
        finally:
            node.destroy_node()
            rclpy.shutdown(context=context)


def put(node: Any, name: str, value: Any) -> str:
    """Set a parameter as `ros2 param set` does; the reason of a refusal, or ""."""
    from rclpy.parameter import Parameter

    (result,) = node.set_parameters([Parameter(name, value=value)])
    return "" if result.successful else result.reason


def test_ranges_choices_and_descriptions_are_told() -> None:
    with declared() as node:
        for name, default in flatten(Config()):
            about, told = setting(name), node.describe_parameter(name)
            assert told.description == about.description
            (limits,) = told.floating_point_range or told.integer_range or [None]
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert (limits.from_value, limits.to_value) == (about.low, about.high)
        choices = node.describe_parameter("node.tf_mode").additional_constraints
        assert choices == "one of: none, map_odom, map_base"


def test_integers_do_for_doubles_at_launch_and_later() -> None:
    from pixloc_ros.ros import parameters

    with declared(priors__max_coast_s=7, priors__gnss_antenna_m=[1, 0, 2]) as node:
        assert parameters.read(node).priors.max_coast_s == 7.0
        assert put(node, "priors.max_coast_s", 7.5) == "", "it stays a double"
        assert put(node, "priors.max_coast_s", 8) == ""
        assert put(node, "priors.gnss_antenna_m", [0, 1, 0]) == ""
        priors = parameters.read(node).priors
        assert (priors.max_coast_s, priors.gnss_antenna_m) == (8.0, (0.0, 1.0, 0.0))
        assert "range" in put(node, "priors.max_coast_s", -1)
        assert "type" in put(node, "view.keyframes", 2.5)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0, "long"])
def test_a_value_that_cannot_be_is_refused_by_name_until_it_is_mended(value: Any) -> None:
    from pixloc_ros.ros import parameters

    with declared(priors__max_coast_s=value) as node:
        with pytest.raises(ConfigError, match=r"'priors\.max_coast_s'"):
            parameters.read(node)
        assert put(node, "priors.max_coast_s", 3) == ""
        assert parameters.read(node).priors.max_coast_s == 3.0


def test_qualities_of_service_cannot_be_overridden() -> None:
    from rclpy.parameter import Parameter

    from pixloc_ros.ros import parameters

    with declared() as node:
        name = "qos_overrides./image.subscription.reliability"
        node.declare_parameter(name, Parameter.Type.STRING.name)
        with pytest.raises(ConfigError, match="the qualities of service of this node are fixed"):
            parameters.read(node)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["-p", "map:=[1"], "map:=[1"),
        (["--nonsense"], "--nonsense"),
        (["--enclave", "/pixloc_localizer"], "SECURITY|security"),  # without its keys
    ],
)
def test_what_ros_itself_refuses_is_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from pixloc_ros.ros import node

    if "--enclave" in arguments:
        monkeypatch.setenv("ROS_SECURITY_KEYSTORE", str(tmp_path))
        monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
        monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    assert node.main(SimpleNamespace(requested=True), args=["--ros-args", *arguments]) == 1
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("the node cannot")]
    assert re.search(re.escape(told) if told.startswith(("/", "-", "m")) else told, line), line


# --- parameter files, as ROS itself reads them ----------------------------------------------------

CONFIG = Path(__file__).resolve().parents[2] / "config"
FILES = [
    CONFIG / "localizer.yaml",
    *CONFIG.glob("robots/*.yaml"),
    *CONFIG.glob("neighbours/*.yaml"),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_ros_reads_our_parameter_files(file: Path) -> None:
    import rclpy
    from rclpy.context import Context
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    from helpers.domains import own_domain

    for name, section in yaml.safe_load(file.read_text()).items():
        context = Context()
        with own_domain() as domain:
            arguments = ["--ros-args", "--params-file", str(file)]
            rclpy.init(args=arguments, context=context, domain_id=domain)
            node = Node(
                "pixloc_localizer" if "*" in name else name,
                context=context,
                automatically_declare_parameters_from_overrides=True,
            )
            try:
                written = dict(flatten_mapping(section["ros__parameters"]))
                told = {key: node.get_parameter(key) for key in written}
            finally:
                node.destroy_node()
                rclpy.shutdown(context=context)
        for key, value in written.items():
            taken = told[key].value
            assert (list(taken) if isinstance(value, list) else taken) == value, key
            assert told[key].type_ is not Parameter.Type.NOT_SET
            assert type(taken) is type(value) or isinstance(value, list), key
