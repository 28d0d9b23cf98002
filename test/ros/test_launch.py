"""The launch files, started with the real launch."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

TEST = Path(__file__).resolve().parents[1]
LAUNCH = TEST.parent / "launch"
AS_TEXT: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
PATIENCE_S = 300.0  # for several programs, one after the other, on a busy machine


@contextmanager
def launched(
    *arguments: str, domain: int, log: Path, file_name: str = "localizer.launch.py"
) -> Iterator[subprocess.Popen[bytes]]:
    """The launch file as a process, as `ros2 launch` runs it; skips where there is no launch."""
    pytest.importorskip("launch_ros", reason="no ROS launch here: `make test-launch` brings it")
    from helpers.live import environment
    from helpers.programs import watched

    env = environment(domain)
    command = [sys.executable, "-c", LAUNCHER, str(LAUNCH / file_name), *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=env, start_new_session=True
        )
    try:
        with watched(process, log, domain):
            yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)


# Takes the names and the clock that launch gives it, as RViz does, and the topics of the layout.
RVIZ = """#!{python}
import pathlib, sys, rclpy, yaml
from geometry_msgs.msg import PoseWithCovarianceStamped
from tf2_msgs.msg import TFMessage
rclpy.init()
node = rclpy.create_node("another")
layout = yaml.safe_load(pathlib.Path(sys.argv[sys.argv.index("-d") + 1]).read_text())
(click,) = [t for t in layout["Visualization Manager"]["Tools"] if "Topic" in t]
node.create_publisher(PoseWithCovarianceStamped, click["Topic"]["Value"], 5)
node.create_subscription(TFMessage, "/tf", print, 5)
for each in layout["Visualization Manager"]["Displays"]:
    if each["Name"] == "Pose and covariance":
        node.create_subscription(PoseWithCovarianceStamped, each["Topic"]["Value"], print, 5)
try:
    rclpy.spin(node)
except BaseException:
    pass
"""


# Brings up what it is told to, as the lifecycle manager of nav2 does.
MANAGER = """#!{python}
import sys, types, rclpy
sys.path.insert(0, "{test}")
from helpers.lifecycle_manager import bring_up
rclpy.init()
node = rclpy.create_node("manager", automatically_declare_parameters_from_overrides=True)
told = lambda name: node.get_parameter(name).value
def call(kind, name, request):
    client = node.create_client(kind, name)
    while not client.wait_for_service(told("service_timeout")):
        assert rclpy.ok()  # the end of the launch
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future)
    return future.result()
rig = types.SimpleNamespace(node=node, call=call)
(name,) = told("node_names")
assert told("autostart")
bond = bring_up(rig, node.get_namespace().strip("/") + "/" + name, told("bond_timeout"), id=name)
try:
    while not bond.formed:
        rclpy.spin_once(node)
    print("bonded with", name, flush=True)
    rclpy.spin(node)
except BaseException:
    pass
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Installs a package whose program shows in ROS what the real one would have been told."""

    def install(package: str, program: str, source: str) -> None:
        prefix = tmp_path / package
        file = prefix / "lib" / package / program
        marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / package
        for each in (file, marker):
            each.parent.mkdir(parents=True)
        marker.write_text("")
        file.write_text(source.replace("{python}", sys.executable).replace("{test}", str(TEST)))
        file.chmod(0o755)
        monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}:{os.environ['AMENT_PREFIX_PATH']}")

    return install


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


def until_heard(rig: Any, topics: set[str]) -> None:
    """Wait until the node in the namespace /left is known to listen to topics."""
    ask = rig.node.get_subscriber_names_and_types_by_node
    rig.until(lambda: topics <= dict(ask("pixloc_localizer", "/left")).keys(), f"all of {topics}")


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
        until_heard(rig, {"/left/image", "/wheel/odom", "/left/tf_static", "/left/tf"})
        rig.until(lambda: rig.node.count_publishers("/left/tf") == 1, "its transforms")
        assert not rig.node.count_publishers("/tf")
        name = "priors.max_coast_s"
        described = ros2_param(domain, "describe", name)
        assert "Type: double" in described and "Min value: " in described, described
        assert "Set parameter successful" in ros2_param(domain, "set", name, "7")
        assert "out of range" in ros2_param(domain, "set", name, "-1")
        assert rig.parameters(name) == [7.0]


def ros2_param(domain: int, verb: str, *words: str) -> str:
    """What `ros2 param` prints about the node in the namespace /left."""
    from helpers.live import environment

    program = "import sys; from ros2cli.cli import main; sys.exit(main())"
    options = ["--no-daemon", "--timeout", str(round(PATIENCE_S))]
    command = [sys.executable, "-c", program, "param", verb, *options, "/left/pixloc_localizer"]
    done = subprocess.run([*command, *words], env=environment(domain), **AS_TEXT)
    return str(done.stdout)


@pytest.mark.ros
@pytest.mark.slow
def test_a_bag_in_a_namespace_with_rviz_and_somebody_who_listens_early(
    street: Path,
    tmp_path: Path,
    domain: int,
    bag: Any,
    stand_in: Callable[[str, str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sensor_msgs.msg import Image

    from helpers.live import Rig, stamp_ns

    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    stand_in("rviz2", "rviz2", RVIZ)
    output, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = ["namespace:=left", "private_tf:=true", "rviz:=true", "rate:=0.5"]
    arguments += ["image_topic:=/image", "camera_info_topic:=/camera_info"]
    arguments += ["odom_topic:=/odom", "gnss_topic:=/gnss/fix"]
    arguments += [f"map:={street / 'map'}", f"bag:={street / 'bag'}", f"output:={output}"]
    with Rig(domain, "/left") as rig:
        rig.node.create_subscription(Image, "/image", lambda message: None, 10)
        with launched(*arguments, domain=domain, log=log) as process:
            told = rig.node.get_publisher_names_and_types_by_node
            heard = rig.node.get_subscriber_names_and_types_by_node
            rig.until(lambda: "rviz2" in rig.node.get_node_names(), "RViz")
            topics = {"/left/tf", "/left/pixloc_localizer/pose"}
            rig.until(lambda: topics <= dict(heard("rviz2", "/left")).keys(), "what it hears")
            rig.until(lambda: "/left/initialpose" in dict(told("rviz2", "/left")), "what it tells")
            assert rig.parameters("use_sim_time", of="/left/rviz2") == [True]
            assert not rig.node.count_publishers("/tf_static")
            assert process.wait(PATIENCE_S) == 0, log.read_text()
    frames = [json.loads(line) for line in (output / "frames.jsonl").read_text().splitlines()]
    assert {frame["status"] for frame in frames} == {"OK"}, log.read_text()
    first, last = (stamp_ns(bag.on("/image")[i].header) for i in (0, -1))
    late_s = (frames[0]["stamp_ns"] - first) * 1e-9
    assert late_s < 1.0, "the bag began before the node was ready"
    assert not list(temporary.rglob("*rviz*")), "a layout of its own for every start"
    assert frames[-1]["stamp_ns"] == last


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("when", ["it loads", "it works"])
def test_two_interrupts_end_everything_quietly(
    street: Path, tmp_path: Path, domain: int, when: str
) -> None:
    """As a terminal sends them: each to launch and to all that it has started.

    Only while Python itself starts, before any line of ours, does it answer with a traceback.
    """
    from helpers.live import Rig

    log = tmp_path / "log.txt"
    arguments = [f"map:={street / 'map'}", f"bag:={street / 'bag'}", f"output:={tmp_path / 'o'}"]
    arguments += ["rate:=0.1"]
    with launched(*arguments, domain=domain, log=log) as process, Rig(domain) as rig:
        if when == "it works":
            rig.until(lambda: rig.state.startswith("TRACKING"), "a pose")
        else:
            ours = {"pixloc_localizer", "pixloc_recorder", "bag_player"}
            rig.until(lambda: ours <= set(rig.node.get_node_names()), "all nodes")
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) in (0, 1, 130)  # launch: it was interrupted
    text = log.read_text()
    assert "Traceback" not in text, text
    assert "Caught exception" not in text, text


@pytest.mark.ros
@pytest.mark.slow
def test_a_bag_is_played_recorded_and_reported_on(
    street: Path, tmp_path: Path, domain: int
) -> None:
    output, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = [f"map:={street / 'map'}", f"bag:={street / 'bag'}", f"output:={output}"]
    with launched(*arguments, "rate:=0.5", domain=domain, log=log) as process:
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames_localized"] > 0, log.read_text()
    assert summary["median_error_m"] < 0.1
    (line,) = [x for x in log.read_text().splitlines() if "pixloc_report {" in x]
    assert json.loads(line[line.index("{") :]) == summary
    assert "Localization report" in (output / "report.md").read_text()
    assert "Traceback" not in log.read_text()
    assert "process has died" not in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["bag:=/nowhere", "rate:=fast", "camera_info_url:=/nowhere.yaml"])
def test_wrong_arguments_end_it_at_once(
    street: Path, tmp_path: Path, domain: int, wrong: str
) -> None:
    log = tmp_path / "log.txt"
    good = {"map": street / "map", "bag": street / "bag", "output": tmp_path / "run"}
    name, _, value = wrong.partition(":=")
    arguments = [f"{key}:={each}" for key, each in {**good, name: value}.items()]
    with launched(*arguments, domain=domain, log=log) as process:
        assert process.wait(PATIENCE_S) != 0
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
        assert process.wait(PATIENCE_S) != 0
    assert "the localizer cannot work" in log.read_text()


@pytest.mark.ros
@pytest.mark.slow
def test_a_lifecycle_manager_of_nav2_brings_it_up(
    street: Path, tmp_path: Path, domain: int, stand_in: Callable[[str, str, str], None]
) -> None:
    pytest.importorskip("bond", reason="no messages of bonds here")
    from helpers.live import Rig

    stand_in("nav2_lifecycle_manager", "lifecycle_manager", MANAGER)
    log = tmp_path / "log.txt"
    arguments = [f"pixloc_map:={street / 'map'}", "namespace:=left", "image_topic:=/front/image"]
    with (
        launched(*arguments, domain=domain, log=log, file_name="nav2_localization.launch.py"),
        Rig(domain, "/left") as rig,
    ):
        rig.until(lambda: rig.state.startswith("WAITING_IMAGE"), "an active node")
        rig.until(lambda: b"bonded with pixloc_localizer" in log.read_bytes(), "the bond")
        assert rig.parameters("node.autostart", "node.bond") == [False, True]
        until_heard(rig, {"/front/image", "/left/tf_static"})
