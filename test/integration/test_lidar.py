"""Maps from point clouds: files read, hidden points hidden, and frames localized on the result."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.limits import bounded
from helpers.scene import BOARDS, CAMERA, FAR, HEIGHT, NEAR, WIDTH, photograph, pose, write_scene
from pixloc_ros.cli.map import app
from pixloc_ros.config import Config, ViewConfig
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build import lidar, visibility
from pixloc_ros.maps.build.builder import BuildOptions, build_from_model
from pixloc_ros.maps.build.lidar import LidarOptions, model_from_cloud
from pixloc_ros.maps.build.visibility import Cloud, prepare, thin, visible
from pixloc_ros.maps.files.clouds import read_cloud
from pixloc_ros.maps.files.meshes import read_mesh
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.view import select_view
from pixloc_ros.types import Frame, PosePrior

pytestmark = pytest.mark.slow

SPACING_M = 0.05
RANGE_M = (0.5, 60.0)
OPTIONS = LidarOptions(voxel_m=0.04, cells_per_image=300)
POINTS = np.array([[0.5, -1.25, 2.0], [1e5, 2.0, -3.0], [7.0, 8.0, 9.5]])


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.concatenate([board.points(SPACING_M) for board in BOARDS])


@pytest.fixture(scope="module")
def scene(tmp_path_factory, points) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder)
    write_ply(folder / "cloud.ply", points)
    return folder


@pytest.fixture(scope="module")
def images(scene) -> list[PosedImage]:
    names = [f"drive 1/{i:03d}.png" for i in range(8)]
    return [
        PosedImage(name, scene / "images" / name, CAMERA, pose(i)) for i, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def built(scene, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("maps") / "map"
    command = ["build", "--posed-images", scene / "meta.json", "--cloud", scene / "cloud.ply"]
    files = ["--images", scene / "images", "--output", output]
    result = CliRunner().invoke(app, [*map(str, command + files)], catch_exceptions=False)
    assert result.exit_code == 0 and "chosen for the map" in result.output
    return output


def write_ply(path: Path, points: np.ndarray, order: str = "little") -> None:
    header = (
        f"ply\nformat binary_{order}_endian 1.0\nelement vertex {len(points)}\n"
        "property double x\nproperty double y\nproperty uchar red\nproperty double z\nend_header\n"
    )
    kind = {"little": "<", "big": ">"}[order]
    records = np.zeros(
        len(points), [("x", kind + "f8"), ("y", kind + "f8"), ("c", "u1"), ("z", kind + "f8")]
    )
    records["x"], records["y"], records["z"] = points.T
    path.write_bytes(header.encode() + records.tobytes())


# --- visibility ----------------------------------------------------------------------------------


def truly_hidden(seen: np.ndarray, T_world_cam: np.ndarray, rim_m: float = 0.0) -> np.ndarray:
    """(N,) whether the near board, without its rim, is between the camera and far points."""
    share = (NEAR.z_m - T_world_cam[2, 3]) / (seen[:, 2] - T_world_cam[2, 3])
    at = T_world_cam[:3, 3] + (seen - T_world_cam[:3, 3]) * share[:, None]
    inside = [
        (at[:, i] > lim[0]) & (at[:, i] < lim[1]) for i, lim in enumerate((NEAR.x_m, NEAR.y_m))
    ]
    return (seen[:, 2] > 5) & np.logical_and(*inside)


@pytest.mark.parametrize("spacing_m", [0.02, 0.06, 0.2])
def test_points_behind_a_board_are_hidden_however_sparse_it_is(spacing_m):
    far, near = FAR.points(0.04), NEAR.points(spacing_m)
    cloud = prepare(np.concatenate([far, near]))
    index, pixels, depths_m = visible(cloud, CAMERA, pose(2), RANGE_M)
    seen = cloud.points[index]
    assert truly_hidden(cloud.points, pose(2)).sum() > 1000
    # The outermost row of the board's points is not at its very edge.
    assert truly_hidden(seen, pose(2)).sum() < 0.03 * truly_hidden(cloud.points, pose(2)).sum()
    in_image = CAMERA.project(torch.from_numpy(se3.transform(se3.inverse(pose(2)), cloud.points)))
    free = in_image[1].numpy() & ~truly_hidden(cloud.points, pose(2))
    assert len(index) > 0.8 * free.sum()
    assert (seen[:, 2] < 5).sum() > 0.9 * (free & (cloud.points[:, 2] < 5)).sum()
    np.testing.assert_allclose(depths_m, se3.transform(se3.inverse(pose(2)), seen)[:, 2], atol=1e-9)
    assert (pixels >= -0.5).all() and (pixels <= [WIDTH, HEIGHT]).all()


def test_road_seen_at_a_grazing_angle_does_not_hide_itself():
    x, z = np.meshgrid(np.arange(-4, 4, 0.1), np.arange(3, 40, 0.1))
    road = np.column_stack([x.ravel(), np.full(x.size, 1.5), z.ravel()])
    index, _, _ = visible(prepare(road), CAMERA, np.eye(4), RANGE_M)
    _, in_image = CAMERA.project(torch.from_numpy(road))
    assert len(index) > 0.98 * in_image.sum()


def test_points_behind_the_camera_and_out_of_range_are_not_seen():
    cloud = Cloud(np.array([[0, 0, -5.0], [0, 0, 0.2], [0, 0, 70.0]]), np.ones(3), np.zeros((3, 3)))
    index, _, _ = visible(cloud, CAMERA, np.eye(4), RANGE_M)
    assert len(index) == 0


def test_thinning_keeps_one_point_per_voxel():
    points = np.random.default_rng(0).uniform(0, 1, (5000, 3))
    kept = points[thin(points, 0.25)]
    assert len(kept) == 64
    assert len(np.unique(np.floor((kept - points.min(0)) / 0.25), axis=0)) == 64
    np.testing.assert_array_equal(thin(points + 5e6, 0.25), thin(points, 0.25))


# --- maps ----------------------------------------------------------------------------------------


def test_map_is_like_any_other(built):
    map_ = Map.load(built)
    assert find_problems(built) == []
    np.testing.assert_allclose(map_.keyframe_T_map_cam, [pose(i) for i in range(8)], atol=1e-12)
    assert (map_.points_map()[:, 2] < 5).sum() > 20
    assert max(hidden_shares(map_)) < 0.01
    assert all(100 < n < 4000 for n in np.diff(map_.whole().observation_offsets))


def hidden_shares(map_: Map) -> list[float]:
    """Of each keyframe's observations, the share that the near board hides in truth.

    Its rim, where the cloud has no points, cannot hide any.
    """
    whole = map_.whole()
    points = whole.points_map()[whole.observation_point]
    parts = np.split(points, whole.observation_offsets[1:-1])
    return [truly_hidden(part, pose(i), rim_m=SPACING_M).mean() for i, part in enumerate(parts)]


def localize(map_: Map, index: float, error_m=(0.1, 0.05, -0.1)):
    frame = Frame(photograph(pose(index)), CAMERA, 0, np.eye(4))
    T_prior = pose(index) @ se3.make(np.eye(3), error_m)
    prior = PosePrior(T_prior, np.diag([0.02] * 3 + [1e-4] * 3), "test", 0)
    return Localizer(Config(), map_).localize(frame, prior)


def test_frames_between_keyframes_are_localized(built):
    for index in (1.5, 3.5, 5.5):
        estimate = localize(Map.load(built), index)
        assert estimate.ok, estimate.message
        assert se3.distance_m(estimate.T_map_base, pose(index)) < 0.02


def test_ignoring_occlusion_spoils_the_features(images, points, built, tmp_path, monkeypatch):
    """What the z-buffer is for: without it far points take the features of the near board."""
    monkeypatch.setattr(visibility, "TOLERANCE_M", 1e9)
    monkeypatch.setattr(lidar, "EDGE_RATIO", 1e9)
    model, _ = model_from_cloud(points, images, OPTIONS)
    folder = images[0].path.parents[1]
    extractor = FeatureExtractor()
    naive = build_from_model(model, folder, tmp_path / "map", extractor, BuildOptions())
    monkeypatch.undo()
    assert max(hidden_shares(naive)) > 0.05
    careful, careless = (localize(m, 3.5).alignment for m in (Map.load(built), naive))
    assert careful.cost < careless.cost and careful.inlier_share > careless.inlier_share


@pytest.mark.parametrize("index", [8, 10])
def test_points_hidden_from_the_prior_are_left_out_of_the_view(built, index):
    """From beside the keyframes, the near board hides what they saw."""
    wide = {"max_points": 9000, "max_viewpoint_change": 9.0}
    culled, all_ = (
        select_view(Map.load(built), pose(index), CAMERA, ViewConfig(cull_hidden=cull, **wide))
        for cull in (True, False)
    )
    hidden, hidden_of_all = (
        truly_hidden(view.points.numpy() + view.origin, pose(index)) for view in (culled, all_)
    )
    assert hidden_of_all.sum() > 0.08 * len(all_)
    assert hidden.sum() < 0.35 * hidden_of_all.sum()
    assert (~hidden).sum() > 0.97 * (~hidden_of_all).sum()


def test_coordinates_of_utm_size(images, points):
    utm = np.array([437_012.0, 5_412_345.0, 318.0])
    far = [
        PosedImage(i.name, i.path, i.camera, se3.make(np.eye(3), utm) @ i.T_map_cam)
        for i in images[:3]
    ]
    there, _ = model_from_cloud(points + utm, far, OPTIONS)
    here, report = model_from_cloud(points, images[:3], OPTIONS)
    assert report.read == len(points) and report.unseen == ()
    np.testing.assert_allclose(there.points_world - utm, here.points_world, atol=1e-6)


def test_cloud_elsewhere_is_refused(images, points):
    with pytest.raises(MapError, match="no image sees a point of the cloud"):
        model_from_cloud(points + np.array([500, 0, 0]), images[:2], OPTIONS)


def test_cloud_without_posed_images_is_refused(tmp_path):
    arguments = ["--images", "i", "--output", str(tmp_path / "m"), "--cloud", "c.ply"]
    with pytest.raises(MapError, match="--cloud needs --posed-images"):
        CliRunner().invoke(app, ["build", *arguments, "--colmap", "c"], catch_exceptions=False)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["little", "big"])
def test_binary_ply(tmp_path, order):
    write_ply(tmp_path / "a.ply", POINTS, order)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.ply"), POINTS)


def test_ascii_ply_with_faces_after_the_vertices(tmp_path):
    path = tmp_path / "mesh.PLY"
    rows = "\n".join(f"7 {x} {y} {z}" for x, y, z in POINTS)
    path.write_text(
        "ply\nformat ascii 1.0\ncomment made by hand\nelement vertex 3\nproperty int id\n"
        "property float x\nproperty float y\nproperty float z\nelement face 1\n"
        f"property list uchar int vertex_indices\nend_header\n{rows}\n3 0 1 2\n"
    )
    np.testing.assert_allclose(read_cloud(path), POINTS)


def pcd(kind: str, body: bytes) -> bytes:
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z _ intensity\nSIZE 4 4 4 1 4\nTYPE F F F U F\n"
        "COUNT 1 1 1 4 1\nWIDTH 3\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 3\n"
    )
    return f"{header}DATA {kind}\n".encode() + body


def test_pcd_with_padding_and_other_fields(tmp_path):
    path = tmp_path / "a.pcd"
    layout = [("xyz", "<f4", 3), ("pad", "u1", 4), ("i", "<f4")]
    records = np.zeros(3, layout)
    records["xyz"] = POINTS
    path.write_bytes(pcd("binary", records.tobytes()))
    np.testing.assert_allclose(read_cloud(path), POINTS)
    rows = "\n".join(f"{x} {y} {z} 0 0 0 0 0.5" for x, y, z in POINTS)
    path.write_bytes(pcd("ascii", rows.encode()))
    np.testing.assert_allclose(read_cloud(path), POINTS)


def test_points_that_are_not_finite_are_left_out(tmp_path):
    write_ply(tmp_path / "a.ply", np.vstack([POINTS, [np.nan, 0, 0], [0, np.inf, 0]]))
    assert len(read_cloud(tmp_path / "a.ply")) == 3
    write_ply(tmp_path / "b.ply", np.full((4, 3), np.nan))
    with pytest.raises(MapError, match=r"b\.ply holds no finite point"):
        read_cloud(tmp_path / "b.ply")


def test_files_that_are_no_clouds_are_named(tmp_path):
    write_ply(tmp_path / "a.ply", POINTS)
    (tmp_path / "short.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-10])
    (tmp_path / "text.ply").write_text("hello\n")
    (tmp_path / "empty.pcd").write_text("")
    (tmp_path / "a.xyz").write_text("1 2 3")
    for name, why in {
        "short.ply": "or more, .* are there",
        "text.ply": "no line 'end_header'",
        "empty.pcd": "no line 'DATA'",
        "a.xyz": "clouds are read from .ply, .pcd, .las, .laz",
        "absent.ply": "No such file",
    }.items():
        with pytest.raises(MapError, match=why) as caught:
            read_cloud(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "name", "command"),
    [
        ("laspy", "a.las", r'pip install "laspy\[lazrs\]"'),
        ("open3d", "a.pcd", r"pip install 'pixloc_ros\[build\]'"),
    ],
)
def test_missing_packages_are_named_with_the_command(tmp_path, monkeypatch, module, name, command):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(pcd("binary_compressed", b""))
    with pytest.raises(MapError, match=command):
        read_cloud(tmp_path / name)


def las(**counts: int) -> bytes:
    """A LAS 1.4 header that counts more than there is."""
    header = bytearray(375)
    header[:4], header[24:26] = b"LASF", b"\x01\x04"
    struct.pack_into("<HII", header, 94, 375, 375, counts.get("records", 0))
    struct.pack_into("<BHI", header, 104, 6, 30, 0)
    struct.pack_into("<IQ", header, 243, counts.get("extended", 0), counts.get("points", 0))
    return bytes(header)


PLY = "ply\nformat {} 1.0\nelement vertex {}\n{}element face {}\n"
AXES = "".join(f"property float {axis}\n" for axis in "xyz")
COUNTS = {
    "lines.ply": PLY.format("ascii", 10**15, AXES, 1) + "end_header\n1 2 3\n",
    "records.ply": PLY.format("binary_little_endian", 10**15, AXES, 1) + "end_header\n123",
    "negative.ply": PLY.format("binary_little_endian", -1, AXES, 1) + "end_header\n123",
    "line.ply": "ply" + "x" * 10**6,
    "points.pcd": pcd("ascii", b"").replace(b"POINTS 3", b"POINTS 99999999999"),
    "repeats.pcd": pcd("ascii", b"").replace(b"COUNT 1", b"COUNT 999999999"),
    "points.las": las(points=10**12),
    "records.las": las(records=2**32 - 1),
    "extended.las": las(extended=2**32 - 1),
    "points.laz": las(points=10**12),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_header_that_counts_more_than_there_is_costs_nothing(tmp_path, name):
    content = COUNTS[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with bounded(max_memory_kb=300_000), pytest.raises(MapError, match=name):
        read_cloud(tmp_path / name)


def test_a_mesh_that_crashes_its_library_is_refused(tmp_path):
    """It has corners of faces without end; open3d writes beyond its memory."""
    header = PLY.format("binary_little_endian", 3, AXES, 1)
    header += "property list char int vertex_indices\nend_header\n"
    (tmp_path / "mesh.ply").write_bytes(header.encode() + bytes(36) + b"\xff" * 100)
    with pytest.raises(MapError, match=r"mesh\.ply"):
        read_mesh(tmp_path / "mesh.ply")


def test_las_is_read_with_its_scale_and_offset(tmp_path):
    import laspy

    header = laspy.LasHeader(point_format=3)
    there = POINTS + np.array([4e5, 5e6, 0])
    header.offsets, header.scales = [4e5, 5e6, 0], [0.001] * 3
    cloud = laspy.LasData(header)
    cloud.xyz = there
    cloud.write(tmp_path / "a.las")
    np.testing.assert_allclose(read_cloud(tmp_path / "a.las"), there, atol=1e-3)


def test_counts_that_a_file_cannot_hold_are_refused_at_once(tmp_path):
    """Whoever believes them runs out of memory, or never ends."""
    write_ply(tmp_path / "a.ply", POINTS)
    whole = (tmp_path / "a.ply").read_bytes()
    huge = whole.replace(b"element vertex 3", b"element vertex 9999999999999")
    (tmp_path / "huge.ply").write_bytes(huge)
    (tmp_path / "below.ply").write_bytes(whole.replace(b"vertex 3", b"vertex -3"))
    cloud = pcd("binary", b"\0" * 100)
    for old, new in ((b"POINTS 3", b"POINTS 4000000000"), (b"WIDTH 3", b"WIDTH 4000000000")):
        cloud = cloud.replace(old, new)
    (tmp_path / "huge.pcd").write_bytes(cloud)
    (tmp_path / "packed.pcd").write_bytes(cloud.replace(b"binary", b"binary_compressed"))
    for name in ("huge.ply", "below.ply", "huge.pcd", "packed.pcd"):
        with pytest.raises(MapError, match="its header tells of") as caught:
            read_cloud(tmp_path / name)
        assert name in str(caught.value)


def test_a_las_that_promises_more_than_it_holds_is_refused(tmp_path):
    import laspy

    cloud = laspy.LasData(laspy.LasHeader(point_format=3))
    cloud.xyz = POINTS
    cloud.write(tmp_path / "a.las")
    content = bytearray((tmp_path / "a.las").read_bytes())
    content[107:111] = (2**32 - 1).to_bytes(4, "little")  # the count of version 1.2
    (tmp_path / "a.las").write_bytes(content)
    with pytest.raises(MapError, match=r"a\.las"):
        read_cloud(tmp_path / "a.las")
