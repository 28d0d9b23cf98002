"""What other packages of a robot make of the node's answers; the packages themselves are absent."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pixloc_ros.config import Config
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.runner import replay
from pixloc_ros.sensors.events import OdometryEvent
from pixloc_ros.types import Estimate
from research.__main__ import build as research_commands
from research.planar_filter import PLANAR, Array, PlanarFilter, planar, wrapped

NEIGHBOURS = Path(__file__).resolve().parents[2] / "config" / "neighbours"
# Of one odometry step of 1/50 s: 3 cm/s along, 1 cm/s across, 0.3 deg/s, as white noise.
STEP_NOISE = np.diag([0.03, 0.01, np.deg2rad(0.3)]) ** 2 / 50


class Drive:
    """A generated drive: truth, odometry, and the localizer's poses."""

    def __init__(self, street: Path, output: Path) -> None:
        self.street, self.run = street, output
        bag = street / "bag"
        self.truth = read_tum(street / "bag.truth.txt")
        config = Config(map=str(street / "map"), threads=1)
        self.poses = [e for e in replay(bag, config, output, report=False).estimates if e.ok]
        with BagReader(bag) as reader:
            events = list(reader.events(parts=("odom",)))
        self.odometry = [event for event in events if isinstance(event, OdometryEvent)]

    def fused(self, poses: list[Estimate]) -> dict[int, PlanarFilter]:
        """The filter at each odometry message; poses correct it with the covariance they claim."""
        first, *rest = poses
        filter, states = PlanarFilter(*measurement(first)), {}
        steps = [event for event in self.odometry if event.stamp_ns >= first.stamp_ns]
        for before, after in pairwise(steps):
            T_step = se3.inverse(before.T_odom_child) @ after.T_odom_child
            filter.drive(planar(T_step), STEP_NOISE)
            while rest and rest[0].stamp_ns <= after.stamp_ns:
                taken = filter.correct(*measurement(rest.pop(0)), threshold_sigma=5.0)
                assert taken, "a good pose was refused: its covariance is too small"
            states[after.stamp_ns] = PlanarFilter(filter.state, filter.covariance)
        return states

    def held(self) -> dict[int, PlanarFilter]:
        """The last pose at each odometry message: what there is without a filter."""
        stamps = [e.stamp_ns for e in self.odometry if e.stamp_ns > self.poses[0].stamp_ns]
        last = {s: [e for e in self.poses if e.stamp_ns <= s][-1] for s in stamps}
        return {stamp: PlanarFilter(*measurement(e)) for stamp, e in last.items()}

    def errors(self, states: dict[int, PlanarFilter]) -> Array:
        """What each state is off by, (N, 3): metres, metres, radians."""
        errors = []
        for stamp, filter in states.items():
            true = self.truth.at(stamp)
            assert true is not None
            x, y, yaw = filter.state - planar(true)
            errors.append((x, y, wrapped(yaw)))
        return np.array(errors)

    def rms_m(self, states: dict[int, PlanarFilter]) -> float:
        return float(np.sqrt(np.mean(np.sum(np.square(self.errors(states)[:, :2]), axis=1))))


def measurement(estimate: Estimate) -> tuple[Any, Any]:
    assert estimate.T_map_base is not None and estimate.covariance is not None
    return planar(estimate.T_map_base), estimate.covariance[np.ix_(PLANAR, PLANAR)]


@pytest.fixture(scope="module")
def drive(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Drive:
    return Drive(street, tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_a_filter_of_poses_and_odometry_is_better_than_either(drive: Drive) -> None:
    states = drive.fused(drive.poses)
    fused_m = drive.rms_m(states)
    assert fused_m < drive.rms_m(drive.fused(drive.poses[:1])) / 2, "odometry alone"
    assert fused_m < drive.rms_m(drive.held()) / 2, "poses alone"
    inside = [
        error @ np.linalg.solve(filter.covariance, error)
        for error, filter in zip(drive.errors(states), states.values(), strict=True)
    ]
    assert 0.3 < np.mean(inside) < 12.0, "3 is right: the filter must not be much too sure"


@pytest.mark.slow
def test_poses_that_come_seldom_are_bridged(drive: Drive) -> None:
    """As where the camera is blinded for seconds, with no GNSS either."""
    states = drive.fused([drive.poses[0], *drive.poses[-2:]])
    assert drive.rms_m(states) < drive.rms_m(drive.fused(drive.poses[:1]))
    before, after = ([f.covariance[0, 0] for f in states.values()][i] for i in (0, -1))
    assert max(f.covariance[0, 0] for f in states.values()) > max(before, after)


@pytest.mark.slow
def test_the_table_of_the_page_can_be_made(drive: Drive) -> None:
    """Of a short drive on which GNSS is of little use; the page has that of KITTI."""
    words = ["fusion", drive.run, drive.street / "bag", "--map", drive.street / "map"]
    words += ["--outage-s", 0.5]
    table = CliRunner().invoke(research_commands(), [str(word) for word in words])
    assert table.exit_code == 0, table.output
    rows = re.findall(r"^│ (\w.*?) +│ (\d\.\d+)", table.output, re.MULTILINE)
    rms_m = {name: float(value) for name, value in rows}
    fused_m = rms_m["poses, GNSS with outages, and odometry"]
    assert fused_m < rms_m["the last pose"] and fused_m < rms_m["GNSS with outages, and odometry"]
    assert len(rms_m) == 8


def parameters_of(file_name: str) -> dict[str, dict[str, Any]]:
    """Parameters by node, as ROS reads them: each node's below `ros__parameters`."""
    content = yaml.safe_load((NEIGHBOURS / file_name).read_text())
    return {node: section["ros__parameters"] for node, section in content.items()}


def test_both_filters_of_robot_localization_are_configured_as_its_reader_wants() -> None:
    filters = parameters_of("robot_localization.yaml")
    assert [f["world_frame"] for f in filters.values()] == ["odom", "map"]
    assert all(f["publish_tf"] for f in filters.values()), "each its own transform"
    for parameters in filters.values():
        sensors = {name for name in parameters if name in ("odom0", "imu0", "pose0")}
        assert all(len(parameters[f"{name}_config"]) == 15 for name in sensors)
        stated = {name.split("_")[0] for name in parameters if name.split("_")[0][-1].isdigit()}
        assert stated == sensors
        for name, value in parameters.items():  # rclcpp takes no integer for a double
            doubles = name in ("frequency", "history_length") or name.endswith("_threshold")
            assert not doubles or isinstance(value, float), name
    poses = filters["ekf_filter_node_map"]
    assert poses["pose0"] == "/pixloc_localizer/pose"
    assert poses["pose0_config"] == [True] * 6 + [False] * 9
    odometry = filters["ekf_filter_node_odom"]
    assert not any(odometry["odom0_config"][:6]), "odometry is fused as velocities"


# What ros_filter.cpp of robot_localization (commit 1cb9533) reads, alone and after an input's name.
FILTER = {
    *("frequency", "two_d_mode", "publish_tf", "smooth_lagged_data", "history_length"),
    *("map_frame", "odom_frame", "base_link_frame", "world_frame"),
}
INPUT = {"", "_config", "_queue_size", "_differential", "_relative", "_rejection_threshold"}


def test_robot_localization_knows_every_parameter() -> None:
    for parameters in parameters_of("robot_localization.yaml").values():
        of_inputs = {name for name in parameters if re.match(r"(odom|imu|pose)\d", name)}
        assert parameters.keys() - of_inputs <= FILTER
        assert {re.sub(r"^(odom|imu|pose)\d", "", name) for name in of_inputs} <= INPUT


def test_the_analyzer_finds_the_report_of_the_node() -> None:
    (analyzers,) = parameters_of("diagnostics.yaml").values()
    pixloc = analyzers["pixloc"]
    source = (NEIGHBOURS.parents[1] / "pixloc_ros/ros/diagnostics.py").read_text()
    assert 'name=f"{name}: localization"' in source
    assert pixloc["contains"] == ["pixloc_localizer: localization"]
    assert pixloc.keys() == {"type", "path", "contains", "timeout", "num_items"}
    assert isinstance(pixloc["timeout"], float)
