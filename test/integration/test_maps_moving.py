"""Clouds of several scans: what moved between them is left out, what stood still stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from pixloc_ros.cli.map import app
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import write_poses
from pixloc_ros.maps.build.moving_objects import Scan, static_points
from pixloc_ros.maps.files.clouds import read_cloud, write_cloud

pytestmark = pytest.mark.slow

ROOM_M = 12.0  # from the middle to each wall
BALL_M = 0.8  # radius of what moves, and of what stands
STANDING = np.array([5.0, -4.0, 0.0])


def moving_ball(index: int) -> np.ndarray:
    return np.array([-6.0 + 2.0 * index, 5.0, 0.0])


def lidar_pose(index: int) -> np.ndarray:
    """T_map_lidar: drives and turns a little."""
    turn = Rotation.from_euler("z", 5.0 * index, degrees=True).as_matrix()
    return se3.make(turn, [0.4 * index, 0.1 * index, 0.0])


def measure(index: int) -> Scan:
    """What a lidar of 31 lines sees of walls, floor and balls."""
    azimuth, elevation = np.meshgrid(
        np.deg2rad(np.arange(0.1, 360, 0.5)), np.deg2rad(np.arange(-15, 16))
    )
    beams = np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ],
        -1,
    ).reshape(-1, 3)
    T_map_lidar = lidar_pose(index)
    along, start = beams @ T_map_lidar[:3, :3].T, T_map_lidar[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = ((np.sign(along) * ROOM_M - start) / along)[:, :2]
        floor = np.where(along[:, 2] < 0, (-1.5 - start[2]) / along[:, 2], np.inf)
    range_m = np.minimum(walls.min(1), floor)
    for centre in (STANDING, moving_ball(index)):
        range_m = np.minimum(range_m, to_ball(along, start, centre))
    return Scan(beams * range_m[:, None], T_map_lidar)


def to_ball(along: np.ndarray, start: np.ndarray, centre: np.ndarray) -> np.ndarray:
    middle = along @ (centre - start)
    squared = BALL_M**2 - (np.linalg.norm(centre - start) ** 2 - middle**2)
    return np.where((squared > 0) & (middle > 0), middle - np.sqrt(np.maximum(squared, 0)), np.inf)


def near(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - centre, axis=-1) < BALL_M + 0.05


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    return [measure(i) for i in range(6)]


def test_what_moves_is_left_out_and_what_stands_stays(scans):
    all_points = np.concatenate([se3.transform(s.T_map_lidar, s.points) for s in scans])
    points, report = static_points(scans)
    balls = [moving_ball(i) for i in range(6)]
    before = sum(near(all_points, ball).sum() for ball in balls)
    assert before > 500
    assert sum(near(points, ball).sum() for ball in balls) < 0.15 * before
    assert near(points, STANDING).sum() > 0.97 * near(all_points, STANDING).sum()
    assert report.moving == len(all_points) - len(points) < 1.2 * before
    assert report.points == len(all_points) and report.scans == 6


def test_scans_that_contradict_each_other_are_refused(scans):
    shrunk = [Scan(scan.points * 0.6**i, scan.T_map_lidar) for i, scan in enumerate(scans)]
    with pytest.raises(MapError, match="are the poses those of the scans"):
        static_points(shrunk)
    with pytest.raises(MapError, match="one scan does not tell what moves"):
        static_points(scans[:1])


def test_command_writes_a_cloud(scans, tmp_path):
    scans = scans[::2]
    names = [f"seq 1/{i}.ply".replace(" ", "_") for i in range(len(scans))]
    (tmp_path / "seq_1").mkdir()
    for name, scan in zip(names, scans, strict=True):
        write_cloud(tmp_path / name, scan.points)
    poses = {n: se3.inverse(s.T_map_lidar) for n, s in zip(names, scans, strict=True)}
    write_poses(tmp_path / "poses.txt", poses)
    arguments = ["--scans", tmp_path, "--poses", tmp_path / "poses.txt", "--output"]
    result = run([*arguments, tmp_path / "cloud.ply"])
    assert "other scans saw through them" in result.output
    np.testing.assert_allclose(
        read_cloud(tmp_path / "cloud.ply"), static_points(scans)[0], atol=1e-5
    )
    with pytest.raises(MapError, match=r"written as \.ply"):
        run([*arguments, tmp_path / "cloud.xyz"])


def run(arguments: list[Path | str]):
    return CliRunner().invoke(app, ["cloud", *map(str, arguments)], catch_exceptions=False)
