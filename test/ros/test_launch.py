"""The launch files, started with the real launch."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


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


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", ["map:=/nowhere", "bag:=/nowhere", "params_file:=/nowhere.yaml", "rate:=fast"]
)
def test_wrong_arguments_end_it_at_once(
    street: Path, tmp_path: Path, domain: int, wrong: str
) -> None:
    log = tmp_path / "log.txt"
    good = {"map": street / "map", "bag": street / "bag", "output": tmp_path / "run"}
    name, _, value = wrong.partition(":=")
    arguments = [f"{key}:={each}" for key, each in {**good, name: value}.items()]
    with launched(*arguments, domain=domain, log=log) as process:
        assert process.wait(30) != 0
    assert value in log.read_text()
    assert "process started" not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
def test_a_map_that_only_the_node_can_judge_ends_a_bag(
    street: Path, tmp_path: Path, domain: int
) -> None:
    shutil.copytree(street / "map", tmp_path / "map")
    (tmp_path / "map" / "keyframes.safetensors").write_bytes(b"altered")
    arguments = [f"map:={tmp_path / 'map'}", f"bag:={street / 'bag'}", f"output:={tmp_path / 'o'}"]
    log = tmp_path / "log.txt"
    with launched(*arguments, domain=domain, log=log) as process:
        assert process.wait(120) != 0
    assert "the localizer cannot work" in log.read_text()
