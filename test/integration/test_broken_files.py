"""Files that are broken, or made up: named in one line, before anything is built on them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from helpers.limits import bounded
from helpers.scene import CAMERA, photograph, pose
from pixloc_ros.errors import DataError, MapError, PixlocError, WeightsError
from pixloc_ros.features import weights
from pixloc_ros.geometry.trajectory import read_tum
from pixloc_ros.maps import schema
from pixloc_ros.maps.build.triangulation import triangulate
from pixloc_ros.maps.files.hloc_logs import read_logs
from pixloc_ros.maps.files.meshes import read_mesh
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.integrity import find_problems
from pixloc_ros.maps.map import Map
from pixloc_ros.replay.queries import read_queries
from research.invented_map import InventedMap, write_invented_map

# --- maps whose hashes fit, and whose arrays do not -----------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("maps") / "map"
    write_invented_map(InventedMap(1500, dims=(4, 4, 4), descriptor=8, tile_m=0), folder)
    return folder


def shortened(array: np.ndarray) -> np.ndarray:
    return array[:-1]


def out_of_range(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed.flat[changed.size // 2] = 30_000
    return changed


def negative(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed.flat[-1] = -7
    return changed


def not_finite(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed.flat[1] = np.nan
    return changed


CHANGES = [
    *(("keyframes", name, change) for name in (
        "keyframe_camera", "keyframe_tile", "covisible_offsets", "covisible_keyframe",
    ) for change in (shortened, out_of_range, negative)),
    *(("tile_0", name, change) for name in (
        "keyframes", "observation_offsets", "observation_point", "observation_row",
    ) for change in (shortened, out_of_range, negative)),
    ("keyframes", "keyframe_T_map_cam", shortened),
    ("keyframes", "keyframe_T_map_cam", not_finite),
    ("keyframes", "keyframe_descriptors", shortened),
    ("keyframes", "covisible_points", shortened),
    ("tile_0", "point_id", shortened),
    ("tile_0", "point_priority", not_finite),
    ("tile_0", "points", shortened),
    ("tile_0", "points", not_finite),
    ("tile_0", "features_1", shortened),
    ("tile_0", "confidences_0", shortened),
    ("tile_0", "confidences_0", not_finite),
]  # fmt: skip


@pytest.mark.parametrize(("file", "name", "change"), CHANGES)
def test_verifying_a_map_finds_what_a_localizer_could_not_use(
    file, name, change, original, tmp_path
):
    folder = shutil.copytree(original, tmp_path / "map")
    arrays = load_file(folder / f"{file}.safetensors")
    save_file(arrays | {name: change(arrays[name])}, folder / f"{file}.safetensors")
    sign(folder)
    try:
        problems = find_problems(folder)
    except MapError as error:
        problems = [str(error)]
    assert problems and all("\n" not in problem for problem in problems)


def sign(folder: Path) -> None:
    """Let map.json say that the files are as they were built."""
    metadata, _ = schema.read(folder)
    files = {name: schema.file_sha256(folder / name) for name in metadata.files}
    tiles = [
        t.model_copy(update={"bytes": (folder / t.file).stat().st_size}) for t in metadata.tiles
    ]
    schema.write(metadata.model_copy(update={"files": files, "tiles": tuple(tiles)}), folder)


def test_a_map_names_no_file_outside_of_its_folder(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "map")
    shutil.move(folder / "tile_0.safetensors", tmp_path / "tile_0.safetensors")
    metadata, _ = schema.read(folder)
    (tile,) = metadata.tiles
    elsewhere = tile.model_copy(update={"file": "../tile_0.safetensors"})
    schema.write(metadata.model_copy(update={"tiles": (elsewhere,)}), folder)
    with pytest.raises(MapError, match="not the name of a file below"):
        Map.load(folder)


@pytest.mark.parametrize("name", ["map.json", "keyframes.safetensors", "tile_0.safetensors"])
@pytest.mark.parametrize("kind", ["link", "endless", "pipe"])
def test_files_of_a_map_are_in_its_folder(name, kind, original, tmp_path):
    """A map that came as an archive may hold links and pipes."""
    folder = shutil.copytree(original, tmp_path / "map")
    if kind == "link":
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    else:
        (folder / name).unlink()
        os.mkfifo(folder / name) if kind == "pipe" else (folder / name).symlink_to("/dev/zero")
    with pytest.raises(MapError, match=rf"{name} (is a link that leads out|is not a file)"):
        Map.load(folder).check_files()


@pytest.mark.parametrize("uri", ["../secret.bin", "/etc/passwd", "%2e%2e/secret.bin", "out.bin"])
def test_a_mesh_reads_no_file_outside_of_its_folder(uri, tmp_path):
    (tmp_path / "mesh").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (tmp_path / "mesh" / "out.bin").symlink_to(tmp_path / "secret.bin")
    content = {"asset": {"version": "2.0"}, "buffers": [{"uri": uri, "byteLength": 64}]}
    (tmp_path / "mesh" / "a.gltf").write_text(json.dumps(content))
    with pytest.raises(MapError, match=r"not the name of a file below|leads out of its folder"):
        read_mesh(tmp_path / "mesh" / "a.gltf")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_queries_name_no_image_outside_of_their_folder(name, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "queries.txt").write_text(f"{name} SIMPLE_PINHOLE 640 480 500 320 240\n")
    with pytest.raises(DataError, match="not the name of a file below"):
        read_queries(tmp_path / "queries.txt", tmp_path / "images")


def test_checking_all_files_names_the_altered_one(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "map")
    map_ = Map.load(folder)
    map_.check_files()
    tile = folder / "tile_0.safetensors"
    content = bytearray(tile.read_bytes())
    content[-1] ^= 1
    tile.write_bytes(content)
    with pytest.raises(MapError, match=r"tile_0\.safetensors was altered"):
        map_.check_files()


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jpg", lambda jpeg: b"", "cannot be read as an image"),
        ("foreign.jpg", lambda jpeg: b"GIF89a, or what else", "cannot be read as an image"),
        ("zero.jpg", lambda jpeg: jpeg[: len(jpeg) // 3] + bytes(len(jpeg) // 3 * 2), "is cut off"),
        ("cut.jpg", lambda jpeg: jpeg[: len(jpeg) // 2], "is cut off"),
        ("small.jpg", lambda jpeg: encode(np.zeros((8, 8, 3), np.uint8)), "is 8x8, its camera"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_before_the_work(name, content, message, tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(3)] + [tmp_path / name]
    for i, path in enumerate(paths):
        path.write_bytes(encode(photograph(pose(i))))
    paths[-1].write_bytes(content(paths[-1].read_bytes()))
    images = [PosedImage(path.name, path, CAMERA, pose(i)) for i, path in enumerate(paths)]
    with pytest.raises(MapError, match=message) as caught:
        triangulate(images)
    assert name in str(caught.value)


def encode(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


# --- weights --------------------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = load_file(weights.PACKAGED / "compact_seed.safetensors")
    name = next(name for name, value in state.items() if value.dtype.kind == "f")
    state[name] = np.full_like(state[name], np.nan)
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match=r"not finite \(.*export them again"):
        weights.load(str(tmp_path / "broken.safetensors"))


@pytest.mark.parametrize("card", ["", "[]", "[" * 100_000, '{"sha256": 1e400}', "\x1b[31m"])
def test_a_broken_card_is_named(card, tmp_path):
    path = shutil.copy(weights.PACKAGED / "compact_seed.safetensors", tmp_path / "own.safetensors")
    path.with_suffix(".json").write_text(card)
    with pytest.raises(WeightsError, match=r"own\.") as caught:
        weights.load(str(path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 and no more", b"\x80\x04.", b"x" * 1000, b"\x80\x02}q\x00X"],
)
def test_a_broken_checkpoint_is_one_line(content, tmp_path, recwarn):
    (tmp_path / "checkpoint_best.tar").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        weights.load(str(tmp_path / "checkpoint_best.tar"))
    assert "checkpoint_best.tar" in str(caught.value) and str(caught.value).isprintable()
    assert not recwarn.list


@pytest.mark.parametrize("content", [[], {}, {"model": 3}, {"model": {1: torch.zeros(1)}}, 7])
def test_a_checkpoint_of_something_else_is_one_line(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint_best.tar")
    with pytest.raises(WeightsError, match="hold no network"):
        weights.load(str(tmp_path / "checkpoint_best.tar"))


def test_json_of_a_map_may_be_anything(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "map")
    whole = json.loads((folder / "map.json").read_text())
    for content in ("[" * 100_000, "{}", "null", json.dumps(whole | {"tile_m": 1e400})):
        (folder / "map.json").write_text(content)
        with pytest.raises(MapError, match=r"map\.json"):
            Map.load(folder)


# --- numbers in text, and an index in a pickle, of any size ---------------------------------------


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (read_queries, b"a.png SIMPLE_PINHOLE 640 480 500 " + b"9" * 30 + b" 240\n"),
        (read_queries, b"a.png SIMPLE_PINHOLE " + b"9" * 30 + b" 480 500 320 240\n"),
        (read_tum, b"1e400 1 2 3 0 0 0 1\n"),
        (read_tum, b"1e12 1 2 3 0 0 0 1\n"),
        (read_logs, b"\x80\x04}r\xff\xff\xff\x7f."),  # it asks for a memory of 2^31 objects
    ],
)
def test_numbers_of_any_size_are_refused(read, content, tmp_path):
    (tmp_path / "file.txt").write_bytes(content)
    with pytest.raises(PixlocError), bounded(max_cpu_s=2.0, max_memory_kb=200_000):
        read(tmp_path / "file.txt")
