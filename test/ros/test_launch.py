"""The launch files: their arguments, and that they start the node of the design.

CI has no `launch`, so most of this reads the files; where `launch_ros` can be imported, which from
its sources takes nothing else, they are executed as well.
"""

import ast
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pixloc_ros.config import Config, flatten

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
ARGUMENTS = {
    "localizer.launch.py": [
        *(
            "map",
            "params_file",
            "image_topic",
            "camera_info_topic",
            "cameras",
            "odom_topic",
            "gnss_topic",
        ),
        *("device", "use_sim_time", "namespace", "private_tf", "rviz", "log_level"),
        *("bag", "rate", "loop", "output"),
    ],
}
PARTS = ("localizer_node", "bag_player", "recorder")
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


def test_nodes_are_those_that_are_installed() -> None:
    started = [keywords(node) for node in calls("localizer.launch.py", "Node")]
    assert {literal(node["package"]) for node in started} == {"pixloc_ros"}
    assert [literal(node["executable"]) for node in started] == list(PARTS)
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


@contextmanager
def launched(*arguments: str, domain: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The launch file as a process, as `ros2 launch` runs it; skips where there is no launch."""
    pytest.importorskip("launch_ros", reason="no ROS launch here: `make test-launch` brings it")
    from helpers.live import environment

    env = environment(domain)
    command = [sys.executable, "-c", LAUNCHER, str(LAUNCH / "localizer.launch.py"), *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=env)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)


LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService()
source = PythonLaunchDescriptionSource(file)
pairs = [tuple(argument.split(":=", 1)) for argument in arguments]
included = IncludeLaunchDescription(source, launch_arguments=pairs)
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""


@pytest.mark.ros
@pytest.mark.slow
def test_the_command_line_wins_and_the_node_lives_in_its_namespace(
    street: Path, tmp_path: Path, domain: int
) -> None:
    from helpers.live import Rig

    values = {"map": "/of/the/file", "device": "cpu", "view": {"keyframes": 2}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"/**/pixloc_localizer": {"ros__parameters": values}}))
    arguments = [f"map:={street / 'map'}", f"params_file:={file}", "namespace:=left"]
    arguments += ["private_tf:=true", "use_sim_time:=true", "odom_topic:=/wheel/odom"]
    with (
        launched(*arguments, domain=domain, log=tmp_path / "log.txt"),
        Rig(domain, "/left") as rig,
    ):
        rig.until(lambda: rig.state.startswith("WAITING_IMAGE"), "a node that has its map")
        names = "map", "device", "view.keyframes", "use_sim_time", "view.max_points"
        assert rig.parameters(*names) == [str(street / "map"), "cpu", 2, True, 1500]
        heard = dict(rig.node.get_subscriber_names_and_types_by_node("pixloc_localizer", "/left"))
        assert {"/left/image", "/wheel/odom", "/left/tf_static", "/left/tf"} <= heard.keys()
        assert rig.node.count_publishers("/left/tf") == 1
        assert not rig.node.count_publishers("/tf")


@pytest.mark.ros
@pytest.mark.slow
def test_a_bag_is_played_recorded_and_reported_on(
    street: Path, tmp_path: Path, domain: int
) -> None:
    output, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = [f"map:={street / 'map'}", f"bag:={street / 'bag'}", f"output:={output}"]
    with launched(*arguments, "rate:=0.5", domain=domain, log=log) as process:
        assert process.wait(180) == 0, log.read_text()
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames_localized"] > 0, log.read_text()
    assert summary["median_error_m"] < 0.1
    assert "Localization report" in (output / "report.md").read_text()
    assert "Traceback" not in log.read_text()
    assert "process has died" not in log.read_text()
