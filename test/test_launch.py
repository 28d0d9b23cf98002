"""The launch files: their arguments, and that they start the node of the design.

CI has no `launch`, so most of this reads the files; where `launch` exists they are loaded as well.
"""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from pixloc_ros.config import Config, flatten

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
ARGUMENTS = {
    "localizer.launch.py": [
        *("map", "params_file", "image_topic", "camera_info_topic", "odom_topic", "gnss_topic"),
        *("device", "use_sim_time", "namespace", "rviz", "log_level"),
    ],
    "replay.launch.py": ["bag", "rate", "delay_s"],
}
TOPICS = {"image", "image/compressed", "camera_info", "odom", "gnss/fix"}


def calls(file_name: str, function: str) -> list[ast.Call]:
    """All calls of a function in a launch file."""
    tree = ast.parse((LAUNCH / file_name).read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in nodes if isinstance(node.func, ast.Name) and node.func.id == function]


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def literal(node: ast.expr) -> Any:
    assert isinstance(node, ast.Constant), ast.unparse(node)
    return node.value


@pytest.mark.parametrize("file_name", ARGUMENTS)
def test_arguments_are_declared_and_described(file_name: str) -> None:
    declared = calls(file_name, "DeclareLaunchArgument")
    assert [literal(call.args[0]) for call in declared] == ARGUMENTS[file_name]
    assert all(literal(keywords(call)["description"]) for call in declared)


def test_every_argument_is_used() -> None:
    for file_name, names in ARGUMENTS.items():
        source = (LAUNCH / file_name).read_text()
        unused = [name for name in names if source.count(f'"{name}"') < 2]
        assert not unused, f"{file_name} declares {unused} and never reads them"


def test_node_is_the_one_that_is_installed() -> None:
    (node,) = calls("localizer.launch.py", "Node")
    given = keywords(node)
    assert literal(given["package"]) == "pixloc_ros"
    assert literal(given["executable"]) == "localizer_node"
    assert literal(given["name"]) == "pixloc_localizer"
    installed = (LAUNCH.parent / "CMakeLists.txt").read_text()
    assert "set(executables localizer_node bag_player)" in installed
    assert "${executable} DESTINATION lib/${PROJECT_NAME}" in installed


def test_remapped_topics_are_those_of_the_design() -> None:
    (node,) = calls("localizer.launch.py", "Node")
    remappings = keywords(node)["remappings"]
    assert isinstance(remappings, ast.List)
    assert {literal(pair.elts[0]) for pair in remappings.elts} == TOPICS  # type: ignore[attr-defined]


def test_command_line_wins_over_the_file_for_existing_parameters() -> None:
    (node,) = calls("localizer.launch.py", "Node")
    parameters = keywords(node)["parameters"]
    assert isinstance(parameters, ast.List)
    first, last = parameters.elts
    assert "params_file" in ast.unparse(first)
    assert "overrides" in ast.unparse(last)  # later entries win in launch_ros
    assert {"map", "device"} <= dict(flatten(Config())).keys()


@pytest.mark.parametrize("file_name", ARGUMENTS)
def test_loads_where_launch_is_installed(file_name: str) -> None:
    pytest.importorskip("launch_ros", reason="no ROS launch here")
    spec = importlib.util.spec_from_file_location("launch_file", LAUNCH / file_name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = module.generate_launch_description().get_launch_arguments()
    assert set(ARGUMENTS[file_name]) <= {argument.name for argument in arguments}
