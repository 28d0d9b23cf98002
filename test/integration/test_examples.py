"""The examples do what they say, with the arguments that their readers would give them."""

from __future__ import annotations

import io
import json
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from pixloc_ros.common import image_files
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import read_poses, write_poses
from pixloc_ros.maps.files.clouds import write_cloud
from pixloc_ros.maps.map import Map

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def run(name: str, *arguments: object) -> str:
    """Run an example as a program, in this process: importing torch takes seconds each time."""
    words, said = [name, *map(str, arguments)], io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(sys, "argv", words)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return said.getvalue()


@pytest.fixture(scope="module")
def query(street: Path) -> dict:
    """An image of the drive: its path, its intrinsics, and its true pose T_map_cam."""
    drive = street / "data" / "drive"
    entry = json.loads((drive / "meta.json").read_text())["images"][8]
    T_map_cam = np.vstack([np.reshape(entry["T_world_cam"], (-1, 4))[:3], [0, 0, 0, 1]])
    K = ",".join(f"{number}" for number in entry["K"])
    return entry | {"path": drive / "images" / entry["file"], "K": K, "T_map_cam": T_map_cam}


def position(output: str) -> np.ndarray:
    line = next(line for line in output.splitlines() if line.startswith("position in the map"))
    return np.array([float(word) for word in line.split(":")[1].split()[:3]])


@pytest.mark.parametrize("with_prior", [False, True])
def test_localize_one_image(street: Path, query: dict, with_prior: bool) -> None:
    T_map_cam = query["T_map_cam"]
    arguments = [street / "map", query["path"], "--intrinsics", query["K"]]
    if with_prior:
        wrong = T_map_cam[:3, 3] + [0.4, -0.3, 0.1]
        arguments += ["--prior=" + ",".join(map(str, [*wrong, *se3.quat_xyzw(T_map_cam)]))]
    found = position(run("localize_one_image.py", *arguments))
    np.testing.assert_allclose(found, T_map_cam[:3, 3], atol=0.05)


def test_localize_one_image_says_why_not(street: Path, query: dict, tmp_path: Path) -> None:
    black = tmp_path / "black.png"
    image_files.write(black, np.zeros((query["height"], query["width"], 3), np.uint8))
    arguments = [street / "map", black, "--intrinsics", query["K"]]
    with pytest.raises(SystemExit) as ended:
        run("localize_one_image.py", *arguments)
    assert str(ended.value.code).startswith(("REJECTED", "AMBIGUOUS", "FAILED"))


def test_build_a_map_from_colmap(street: Path, tmp_path: Path) -> None:
    mapping = street / "data" / "mapping"
    output = tmp_path / "map"
    arguments = [mapping / "colmap", mapping / "images", output, "--datum", "49.0,8.4,110,25"]
    said = run("build_a_map_from_colmap.py", *arguments)
    built, known = Map.load(output), Map.load(street / "map")
    assert f"{len(known.keyframe_names)} keyframes, {known.point_count} points" in said
    assert built.keyframe_names == known.keyframe_names
    assert built.datum == known.datum


def test_refine_poses_of_another_system(street: Path, query: dict, tmp_path: Path) -> None:
    fx, fy, cx, cy = (float(number) for number in query["K"].split(","))
    size = f"{query['width']} {query['height']}"
    model = f"PINHOLE {size} {fx} {fy} {cx + 0.5} {cy + 0.5}"
    (tmp_path / "queries.txt").write_text(f"{query['file']} {model}\n")
    given = query["T_map_cam"].copy()
    given[:3, 3] += [0.2, 0.1, -0.1]
    write_poses(tmp_path / "poses.txt", {query["file"]: se3.inverse(given)})
    files = [tmp_path / name for name in ("queries.txt", "poses.txt", "refined.txt")]
    run("refine_poses_of_another_system.py", street / "map", query["path"].parent, *files)
    refined = se3.inverse(read_poses(files[-1])[query["file"]])
    assert se3.distance_m(refined, query["T_map_cam"]) < 0.05


def test_replay_a_bag_and_plot(street: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    said = run("replay_a_bag_and_plot.py", street / "bag", street / "map", plot)
    localized, total = re.search(r"localized (\d+) of (\d+) frames", said).groups()
    assert int(localized) >= 0.8 * int(total) > 5
    assert image_files.read(plot) is not None


def test_occupancy_grid_in_the_frame_of_the_cloud(tmp_path: Path) -> None:
    ground = np.stack(np.meshgrid(np.arange(3.0, 9, 0.05), np.arange(-4, 2, 0.05)), -1)
    ground = np.column_stack([ground.reshape(-1, 2), np.full(ground[..., 0].size, 1.0)])
    along, up = np.meshgrid(np.arange(3.0, 9, 0.05), np.arange(1.3, 2.5, 0.1))
    wall = np.column_stack([along.ravel(), np.full(along.size, -2.55), up.ravel()])
    write_cloud(tmp_path / "points.ply", np.concatenate([ground, wall]))
    run("occupancy_grid.py", tmp_path / "points.ply", tmp_path / "grid", "--ground", 1.0)
    told = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    grid = cv2.imread(str(tmp_path / told["image"]), cv2.IMREAD_GRAYSCALE)[::-1]

    def at(x: float, y: float) -> int:
        x0, y0, _ = told["origin"]
        return grid[int((y - y0) / told["resolution"]), int((x - x0) / told["resolution"])]

    assert [at(5.0, y) for y in (-2.55, -1.0, -3.5, 1.5)] == [0, 254, 254, 254]
