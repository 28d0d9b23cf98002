"""Maps from meshes and from depth images: files read, points placed, and frames localized."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.scene import (
    BOARDS,
    CAMERA,
    CENTER,
    FOCAL,
    HEIGHT,
    WIDTH,
    Board,
    photograph,
    pose,
    write_scene,
)
from pixloc_ros.cli.map import app
from pixloc_ros.config import Config
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.depth_images import back_project, read_depth_cloud
from pixloc_ros.maps.build.visibility import MeshOccluder
from pixloc_ros.maps.files.clouds import import_open3d
from pixloc_ros.maps.files.meshes import read_mesh, sample_mesh
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.files.posed_sequences import read_posed_frames
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Frame, PosePrior

pytestmark = pytest.mark.slow

INTRINSICS = ",".join(map(str, (FOCAL, FOCAL, *CENTER)))
COUNT = 8


def true_depth(T_world_cam: np.ndarray, scale: int = 1) -> np.ndarray:
    """(H, W) in metres of the boards, in an image `scale` times smaller; 0 beside them."""
    row, column = np.mgrid[: HEIGHT // scale, : WIDTH // scale]
    x, y = ((i + 0.5) * scale - 0.5 for i in (column, row))
    rays = np.stack([(x - CENTER[0]) / FOCAL, (y - CENTER[1]) / FOCAL, np.ones(x.shape)], -1)
    R, t = T_world_cam[:3, :3], T_world_cam[:3, 3]
    depth = np.zeros(x.shape)
    for board in BOARDS:  # far to near
        along = rays @ R.T
        share = (board.z_m - t[2]) / along[..., 2]
        hit = t + along * share[..., None]
        inside = [(hit[..., i] > a) & (hit[..., i] < b) for i, (a, b) in enumerate(sides(board))]
        depth = np.where(np.logical_and(*inside), share, depth)
    return depth


def sides(board: Board) -> tuple[tuple[float, float], tuple[float, float]]:
    return board.x_m, board.y_m


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """frames/ as in 7-Scenes, and a scene with meta.json."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scene(folder, COUNT)
    frames = folder / "frames" / "seq-01"
    frames.mkdir(parents=True)
    for i in range(COUNT):
        stem = str(frames / f"frame-{i:06d}")
        cv2.imwrite(f"{stem}.color.png", photograph(pose(i)))
        cv2.imwrite(f"{stem}.depth.png", np.round(true_depth(pose(i)) * 1000).astype(np.uint16))
        np.savetxt(f"{stem}.pose.txt", pose(i), fmt="%.9e", delimiter="\t")
    return folder


def build(output: Path, *arguments: object) -> Map:
    command = ["build", "--output", output, *arguments]
    result = CliRunner().invoke(app, [*map(str, command)], catch_exceptions=False)
    assert result.exit_code == 0 and "chosen for the map" in result.output
    return Map.load(output)


def assert_localizes(map_: Map) -> None:
    for index in (2.5, 4.5):
        T_map_cam = pose(index)
        frame = Frame(photograph(T_map_cam), CAMERA, 0, np.eye(4))
        T_prior = T_map_cam @ se3.make(np.eye(3), [0.1, 0.05, -0.1])
        prior = PosePrior(T_prior, np.diag([0.02] * 3 + [1e-4] * 3), "test", 0)
        estimate = Localizer(Config(), map_).localize(frame, prior)
        assert estimate.ok, estimate.message
        assert se3.distance_m(estimate.T_map_base, T_map_cam) < 0.02


def assert_on_boards(points: np.ndarray, tolerance_m: float) -> None:
    from_boards = np.min([np.abs(points[:, 2] - board.z_m) for board in BOARDS], axis=0)
    assert from_boards.max() < tolerance_m
    assert (points[:, 2] < 5).sum() > 20 and (points[:, 2] > 5).sum() > 20


# --- depth images --------------------------------------------------------------------------------


def test_frames_with_depth_and_poses_become_a_map(scenes, tmp_path):
    frames = scenes / "frames"
    sources = ["--images", frames, "--posed-images", frames, "--depth", frames]
    map_ = build(tmp_path / "map", *sources, "--intrinsics", INTRINSICS)
    assert map_.keyframe_names[3] == "seq-01/frame-000003.color.png"
    np.testing.assert_allclose(map_.keyframe_T_map_cam[3], pose(3), atol=1e-8)
    assert_on_boards(map_.points_map(), 0.002)
    assert_localizes(map_)


def test_depth_is_placed_by_pose_scale_and_size(scenes, tmp_path):
    """Depth images of half the size, in quarters of a millimetre, named as the images."""
    images = []
    for i in (0, 7):
        name = f"drive 1/{i:03d}.png"
        images.append(PosedImage(name, scenes / "images" / name, CAMERA, pose(i)))
        (tmp_path / name).parent.mkdir(exist_ok=True)
        depth = np.round(true_depth(pose(i), scale=2) * 4000).astype(np.uint16)
        cv2.imwrite(str(tmp_path / name), depth)
    points = read_depth_cloud(images, tmp_path, 4000.0, 60.0, 0.05)
    assert_on_boards(points, 0.001)
    near = points[points[:, 2] < 5]
    np.testing.assert_allclose(near[:, :2].min(0), [0.2, -1.2], atol=0.06)
    np.testing.assert_allclose(near[:, :2].max(0), [1.4, 0.9], atol=0.06)
    assert len(read_depth_cloud(images, tmp_path, 4000.0, 5.0, 0.05)) < len(points) / 3


def test_depth_without_value_and_at_edges_gives_no_point():
    depth = np.full((HEIGHT, WIDTH), 4.0)
    depth[:, 100:] = 2.0
    depth[50, 50] = np.nan
    points = back_project(depth, CAMERA, 10.0)
    edge, hole = 2 * HEIGHT, 1
    assert len(points) == HEIGHT * WIDTH - edge - hole
    with_distortion = Camera.create("OPENCV", [WIDTH, HEIGHT], [FOCAL] * 2, CENTER, [-0.2, 0, 0, 0])
    bent = back_project(np.full((HEIGHT, WIDTH), 4.0), with_distortion, 10.0)
    pixels, _ = with_distortion.project(torch_of(bent))
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    np.testing.assert_allclose(pixels, np.stack([column, row], -1).reshape(-1, 2), atol=0.1)


def torch_of(points: np.ndarray):
    import torch

    return torch.from_numpy(points)


def test_depth_images_that_cannot_be_used_are_named(scenes, tmp_path):
    image = PosedImage("a.png", scenes / "a.png", CAMERA, np.eye(4))
    with pytest.raises(MapError, match=r"lacks depth images of 1 of 1 images.*'a\.png'"):
        read_depth_cloud([image], tmp_path, 1000.0, 60.0, 0.05)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(MapError, match=r"a\.png is no depth image"):
        read_depth_cloud([image], tmp_path, 1000.0, 60.0, 0.05)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH), 65535, np.uint16))
    with pytest.raises(MapError, match="hold nothing up to 60 m"):
        read_depth_cloud([image], tmp_path, 1000.0, 60.0, 0.05)


def test_frames_that_were_lost_are_left_out_and_named(scenes, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, text in enumerate(["1 0 0 0\n0 1 0 0\n0 0 1 2\n0 0 0 1\n", "-1.#IND " * 16]):
        (frames / f"f{i}.pose.txt").write_text(text)
        cv2.imwrite(str(frames / f"f{i}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    drive, lost = read_posed_frames(frames, frames, INTRINSICS)
    assert lost == ("f1.pose.txt",) and [path.name for path in drive.files] == ["f0.png"]
    assert drive.T_map_base[0, 2, 3] == 2
    (frames / "f0.png").unlink()
    with pytest.raises(DataError, match=r"lacks the image of f0\.pose\.txt"):
        read_posed_frames(frames, frames, INTRINSICS)
    (frames / "f0.pose.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="not a pose of 4x4 numbers"):
        read_posed_frames(frames, frames, INTRINSICS)
    with pytest.raises(DataError, match=r"holds no NAME\.pose\.txt"):
        read_posed_frames(scenes / "images", scenes / "images", INTRINSICS)


# --- meshes --------------------------------------------------------------------------------------


def write_obj(path: Path) -> None:
    """The boards as quads; the second counts its vertices backwards, and has texture numbers."""
    lines = []
    for board in BOARDS:
        (x0, x1), (y0, y1) = sides(board)
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        lines += [f"v {x} {y} {board.z_m}" for x, y in corners]
    lines += ["vt 0 0", "f 1 2 3 4", "f -4/1 -3/1 -2/1 -1/1"]
    path.write_text("\n".join(lines) + "\n")


def ply_of_a_square_and_a_triangle(order: str) -> bytes:
    points = [(0, 0, 0), (2, 0, 0), (2, 1, 0), (0, 1, 0), (0, 3, 0)]
    faces = [(0, 1, 2, 3), (3, 2, 4)]
    header = (
        f"ply\nformat {order} 1.0\nelement vertex 5\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nelement face 2\nproperty uchar quality\n"
        "property list uchar int vertex_indices\nproperty float area\nend_header\n"
    )
    if order == "ascii":
        header = header.replace("property uchar quality\n", "")
        rows = [f"{x} {y} {z} 9" for x, y, z in points]
        rows += [f"{len(f)} {' '.join(map(str, f))} 0.5" for f in faces]
        return (header + "\n".join(rows) + "\n").encode()
    o = {"binary_little_endian": "<", "binary_big_endian": ">"}[order]
    body = b"".join(struct.pack(o + "fffB", *p, 9) for p in points)
    body += b"".join(struct.pack(f"{o}BB{len(f)}if", 7, len(f), *f, 0.5) for f in faces)
    return header.encode() + body


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_points_are_spread_evenly_over_the_faces(tmp_path, order):
    path = tmp_path / "mesh.ply"
    path.write_bytes(ply_of_a_square_and_a_triangle(order))
    points = sample_mesh(read_mesh(path), 0.05)
    assert len(points) == pytest.approx(4.0 / 0.05**2, abs=3)
    assert (points[:, 2] == 0).all()
    x, y = points[:, 0], points[:, 1]
    assert (y < 1).mean() == pytest.approx(0.5, abs=0.01), "the square is half of the area"
    assert (x[y >= 1] <= 3.0 - y[y >= 1] + 1e-6).all()
    counts, _, _ = np.histogram2d(x[y < 1], y[y < 1], bins=(8, 4), range=((0, 2), (0, 1)))
    assert counts.min() > 0.7 * counts.mean() and counts.max() < 1.3 * counts.mean()


def test_mesh_with_posed_images_becomes_a_map(scenes, tmp_path):
    write_obj(tmp_path / "boards.obj")
    sources = ["--images", scenes / "images", "--posed-images", scenes / "meta.json"]
    map_ = build(tmp_path / "map", *sources, "--mesh", tmp_path / "boards.obj")
    assert_on_boards(map_.points_map(), 1e-4)
    assert_localizes(map_)


@pytest.mark.parametrize("suffix", [".stl", ".gltf", ".ply"])
def test_meshes_of_other_programs_are_read(tmp_path, suffix):
    open3d = import_open3d(tmp_path)
    box = open3d.geometry.TriangleMesh.create_box(1.0, 2.0, 3.0)
    box.compute_vertex_normals()
    assert open3d.io.write_triangle_mesh(tmp_path / f"box{suffix}", box)
    mesh = read_mesh(tmp_path / f"box{suffix}")
    assert len(mesh.triangles) == 12
    np.testing.assert_allclose(mesh.corners.max((0, 1)) - mesh.corners.min((0, 1)), [1, 2, 3])
    assert len(sample_mesh(mesh, 0.1)) == pytest.approx(2200, abs=2)


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_meshes_in_utm_keep_their_digits(tmp_path, suffix):
    zero = np.array([691_608.123, 5_335_832.456, 519.25])
    corners = zero + np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    text = "".join("v {:.3f} {:.3f} {:.3f}\n".format(*c) for c in corners) + "f 1 2 3\n"
    if suffix == ".ply":
        text = (
            "ply\nformat ascii 1.0\nelement vertex 3\nproperty double x\nproperty double y\n"
            "property double z\nelement face 1\nproperty list uchar int vertex_indices\n"
            "end_header\n" + text.replace("v ", "").replace("f 1 2 3", "3 0 1 2")
        )
    (tmp_path / f"site{suffix}").write_text(text)
    mesh = read_mesh(tmp_path / f"site{suffix}")
    np.testing.assert_allclose(mesh.corners[0], corners, rtol=0, atol=1e-6)


def test_a_surface_hides_exactly_what_is_behind_it():
    wall = np.array([[-1, -1, 5], [1, -1, 5], [1, 1, 5], [-1, 1, 5]], float)
    surface = MeshOccluder(wall, np.array([[0, 1, 2], [0, 2, 3]]))
    points = np.array(
        [[0, 0, 5], [0.99, 0.99, 5], [0, 0, 6], [1.19, 0, 6], [1.21, 0, 6], [0, 0, 4]]
    )
    hidden = surface.hides(points, np.zeros(3))
    np.testing.assert_array_equal(hidden, [False, False, True, True, False, False])


def test_meshes_that_cannot_be_used_are_named(tmp_path):
    whole = ply_of_a_square_and_a_triangle("binary_little_endian")
    contents = {
        "short.ply": (whole[:-9], "or more, .* are there"),
        "cloud.ply": (whole.replace(b"element face", b"element edge"), "no faces"),
        "points.obj": (b"v 0 0 0\n", "no faces"),
        "index.obj": (b"v 0 0 0\nf 1 2 3\n", "export it again|Export it again"),
        "many.stl": (b" " * 80 + b"\xff" * 4 + b"x" * 50, "4294967295 triangles in 134 bytes"),
        "a.dae": (b"", r"meshes are read from \.ply, \.obj"),
        "tiny.obj": (b"v 0 0 0\nv 1e-3 0 0\nv 0 1e-3 0\nf 1 2 3\n", "is it in metres"),
        "huge.obj": (b"v 0 0 0\nv 1e6 0 0\nv 0 1e6 0\nf 1 2 3\n", "is it in metres"),
    }
    for name, (content, why) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MapError, match=why) as caught:
            sample_mesh(read_mesh(tmp_path / name), 0.05, name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_two_sources_of_points_are_refused(tmp_path):
    arguments = ["--images", "i", "--output", str(tmp_path / "m"), "--posed-images", "p.json"]
    with pytest.raises(MapError, match="--cloud and --mesh are two sources of points"):
        CliRunner().invoke(
            app,
            ["build", *arguments, "--cloud", "c.ply", "--mesh", "m.ply"],
            catch_exceptions=False,
        )
