"""Good files and messages, small, that the targets damage. Each is made once per process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import laspy
import numpy as np
from rosbags.rosbag2 import StoragePlugin

from helpers.drives import START_NS, read_drive, write_drive
from helpers.scene import write_scene
from helpers.video import as_video
from helpers.wall import CAMERA, write_dataset
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build.builder import build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.clouds import write_cloud
from pixloc_ros.maps.map import Map
from pixloc_ros.replay import messages
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_writer import create_bag
from pixloc_ros.sensors import topics
from pixloc_ros.types import Frame, PosePrior
from research.invented_map import InventedMap, write_invented_map

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-5, 5, (20, 3))
DATUM = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=25.0)


@cache
def folder() -> Path:
    """Where samples lie; gone with the process."""
    path = Path(tempfile.mkdtemp(prefix="pixloc_fuzz_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def dataset() -> Path:
    """images/ and colmap/ of a wall."""
    path = folder() / "dataset"
    write_dataset(path, np.zeros(3))
    return path


@cache
def map_folder() -> Path:
    """A map of the wall."""
    source = ColmapSource(model_dir=dataset() / "colmap", images=dataset() / "images")
    build_map(source, folder() / "map").close()
    return folder() / "map"


@cache
def level_map() -> Map:
    """A map whose z is up."""
    path = folder() / "level"
    write_invented_map(InventedMap(200, dims=(4, 4, 4), descriptor=8, tile_m=0), path)
    return Map.load(path)


@cache
def query() -> tuple[Frame, PosePrior]:
    """A frame of the wall and where it is about."""
    sample = Map.load(map_folder())
    name, T_map_cam = sample.keyframe_names[2], sample.keyframe_T_map_cam[2]
    image_bgr = cv2.imread(str(dataset() / "images" / name))
    frame = Frame(image_bgr[..., ::-1].copy(), CAMERA, START_NS, np.eye(4), name)
    covariance = np.diag([0.01] * 3 + [1e-4] * 3)
    sample.close()
    return frame, PosePrior(T_map_cam, covariance, "file", START_NS)


@cache
def colmap(suffix: str) -> dict[str, bytes]:
    """The files of a model, binary or text."""
    path = dataset() / "colmap"
    if suffix == ".txt":
        import pycolmap

        path = folder() / "colmap_txt"
        path.mkdir()
        pycolmap.Reconstruction(str(dataset() / "colmap")).write_text(str(path))
    return {file.name: file.read_bytes() for file in sorted(path.glob(f"*{suffix}"))}


@cache
def bag_file(storage: StoragePlugin) -> bytes:
    """A short drive, as the only file of a bag."""
    meta = folder() / "drive" / "meta.json"
    if not meta.exists():
        write_drive(meta.parent, count=3)
    path = folder() / storage.name.lower()
    options = BagOptions(storage=storage.name.lower(), datum=DATUM)
    create_bag(read_drive(meta), path, options)
    (file,) = (f for f in path.iterdir() if f.suffix in (".mcap", ".db3"))
    return file.read_bytes()


@cache
def clouds(suffix: str) -> list[bytes]:
    """Clouds of 20 points in several dialects of a format."""
    if suffix in (".las", ".laz"):
        cloud = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
        cloud.x, cloud.y, cloud.z = POINTS.T
        path = folder() / f"cloud{suffix}"
        cloud.write(str(path))
        return [path.read_bytes()]
    rows = "".join(f"{x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in POINTS)
    if suffix == ".pcd":
        head = "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 20\nHEIGHT 1\n"
        head += "POINTS 20\nDATA "
        binary = POINTS.astype("<f4").tobytes()
        return [f"{head}ascii\n{rows}".encode(), f"{head}binary\n".encode() + binary]
    path = folder() / "cloud.ply"
    write_cloud(path, POINTS)
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    head = f"ply\nformat ascii 1.0\nelement vertex 20\n{axes}end_header\n"
    return [path.read_bytes(), (head + rows).encode()]


@cache
def meshes(suffix: str) -> list[bytes]:
    """A mesh of a few triangles."""
    corners = POINTS[:6]
    if suffix == ".obj":
        lines = [f"v {x} {y} {z}" for x, y, z in corners] + ["f 1 2 3", "f 1/1 -1 4", "f 2 3 4 5"]
        return ["\n".join(lines).encode()]
    if suffix in (".stl", ".gltf"):
        import open3d

        mesh = open3d.geometry.TriangleMesh(
            open3d.utility.Vector3dVector(corners),
            open3d.utility.Vector3iVector([[0, 1, 2], [3, 4, 5]]),
        )
        mesh.compute_triangle_normals()
        path = folder() / f"mesh{suffix}"
        assert open3d.io.write_triangle_mesh(path, mesh)
        return [path.read_bytes()]
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    head = f"element vertex 6\n{axes}element face 2\nproperty list uchar int vertex_indices\n"
    rows = "".join(f"{x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in corners)
    faces = b"".join(b"\x03" + np.array(f, "<i4").tobytes() for f in ([0, 1, 2], [3, 4, 5]))
    text = f"ply\nformat ascii 1.0\n{head}end_header\n{rows}3 0 1 2\n3 3 4 5\n"
    begin = f"ply\nformat binary_little_endian 1.0\n{head}end_header\n"
    return [text.encode(), begin.encode() + corners.astype("<f4").tobytes() + faces]


@cache
def pictures() -> list[bytes]:
    """One picture as a file of each format that is read."""
    picture = cv2.imread(str(next((dataset() / "images").rglob("*.png"))))[:48, :64]
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    kinds: list[tuple[str, list[int]]] = [
        (".jpg", []), (".jpg", progressive), (".png", []), (".webp", []), (".bmp", []),
        (".tiff", []), (".ppm", []),
    ]  # fmt: skip
    return [cv2.imencode(suffix, picture, options)[1].tobytes() for suffix, options in kinds]


@cache
def videos() -> list[list[Any]]:
    """Short videos as messages of both types, in both codecs, with B-frames and without."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    found = [cv2.resize(each, (64, 48), interpolation=cv2.INTER_CUBIC) for each in noise]
    images = [messages.image(START_NS + i, "cam", each) for i, each in enumerate(found)]
    kinds = [(topics.FFMPEG_PACKET, True), (topics.COMPRESSED_VIDEO, False)]
    return [
        as_video(kind, codec, images, b_frames)
        for kind, b_frames in kinds
        for codec in ("h264", "hevc")
    ]


@cache
def scene() -> Path:
    """meta.json and images/ of a slide past boards."""
    return write_scene(folder() / "scene", count=2)


def all_messages() -> dict[str, list[Any]]:
    """Messages that the node takes, by their part."""
    T = se3.make(np.eye(3), [1.0, 2.0, 0.5])
    pixels = np.zeros((8, 12, 3), np.uint8)
    compressed = [messages.compressed_image(START_NS, "cam", content) for content in pictures()]
    stated = messages.pose_with_covariance(START_NS, "map", T, np.eye(6))
    return {
        "image": [messages.image(START_NS, "cam", pixels), *compressed],
        "camera_info": [messages.camera_info(START_NS, "cam", CAMERA)],
        "odom": [messages.odometry(START_NS, "odom", "base_link", T)],
        "gnss_fix": [messages.nav_sat_fix(START_NS, "gps", (49.0, 8.4, 110.0), np.ones(3))],
        "gnss_pose": [stated],
        "initialpose": [stated],
        "tf_static": [messages.static_transform(START_NS, "base_link", "cam", T)],
    }
