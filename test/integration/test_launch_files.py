"""The launch files as they are written: their arguments, nodes and topics."""

import ast
from pathlib import Path
from typing import Any

import pytest

from pixloc_ros.config import Config, flatten
from pixloc_ros.ros.launch_arguments import SETTINGS

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
ARGUMENTS = {
    "localizer.launch.py": [
        *(
            "map",
            "params_file",
            "image_topic",
            "camera_info_topic",
            "camera_info_url",
            "cameras",
            "odom_topic",
            "gnss_topic",
        ),
        *("device", "use_sim_time", "namespace", "private_tf", "managed"),
        *("rviz", "log_level"),
        *("bag", "rate", "loop", "record", "output"),
    ],
    "nav2_localization.launch.py": [
        *("pixloc_map", "map", "namespace", "use_sim_time", "autostart", "bond_timeout")
    ],
}
PARTS = ("localizer_node", "bag_player", "recorder")
TOPICS = {"image", "camera_info", "odom", "gnss/fix"}


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
        read = set(SETTINGS) if "launch_arguments.SETTINGS" in source else set()
        unused = [n for n in names if n not in read and source.count(f'"{n}"') < 2]
        assert not unused, f"{file_name} declares {unused} and never reads them"


def test_nodes_are_those_that_are_installed() -> None:
    nodes = [keywords(node) for node in calls("localizer.launch.py", "Node")]
    started = [(literal(node["package"]), literal(node["executable"])) for node in nodes]
    assert started == [*(("pixloc_ros", part) for part in PARTS), ("rviz2", "rviz2")]
    assert 'NODE = "pixloc_localizer"' in (LAUNCH / "localizer.launch.py").read_text()
    installed = (LAUNCH.parent / "CMakeLists.txt").read_text()
    assert f"set(executables {' '.join(PARTS)})" in installed
    assert "${executable} DESTINATION lib/${PROJECT_NAME}" in installed


def test_remapped_topics_are_those_of_the_design() -> None:
    node, *_ = calls("localizer.launch.py", "Node")
    remappings = keywords(node)["remappings"]
    assert isinstance(remappings, ast.List)
    pairs = [pair for pair in remappings.elts if isinstance(pair, ast.Tuple)]
    assert {literal(pair.elts[0]) for pair in pairs} == TOPICS


def test_command_line_wins_over_the_file_for_existing_parameters() -> None:
    node, *_ = calls("localizer.launch.py", "Node")
    parameters = keywords(node)["parameters"]
    assert isinstance(parameters, ast.List)
    first, last = parameters.elts
    assert "params_file" in ast.unparse(first)
    assert "overrides" in ast.unparse(last)  # later entries win in launch_ros
    assert {"map", "device"} <= dict(flatten(Config())).keys()
