"""Files of every kind that is read, and parameters."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from rosbags.rosbag2 import StoragePlugin

from fuzz import samples
from fuzz.damage import (
    damaged_bytes,
    damaged_json,
    damaged_text,
)
from fuzz.harness import Target, file_target
from fuzz.message_targets import check
from fuzz.parameters import parameters
from pixloc_ros import config
from pixloc_ros.common import image_files
from pixloc_ros.common.foreign_files import read_json
from pixloc_ros.errors import DataError, PixlocError
from pixloc_ros.features import weights
from pixloc_ros.geometry.trajectory import read_poses, read_tum
from pixloc_ros.maps.build.image_positions import align_model
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.files.clouds import read_cloud
from pixloc_ros.maps.files.colmap import read_model
from pixloc_ros.maps.files.meshes import read_mesh, sample_mesh
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.priors.last_pose import LastPoseFile
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.training import config as training_config


def _colmap(suffix: str) -> Target:
    @st.composite
    def models(draw: DrawFn) -> dict[str, bytes]:
        files = dict(samples.colmap(suffix))
        name = draw(st.sampled_from(sorted(files)))
        content = files[name]
        damage = damaged_bytes([content]) if suffix == ".bin" else damaged_text([content.decode()])
        files[name] = draw(damage)
        return files

    def read(files: dict[str, bytes], folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        read_model(folder)

    return Target(f"COLMAP {suffix}", models, read)


def _bag(storage: StoragePlugin, file_name: str) -> Target:
    def take(path: Path) -> None:
        with BagReader(path) as reader:
            for event in reader:
                with contextlib.suppress(PixlocError):
                    check(event)

    def cases() -> SearchStrategy[bytes]:
        return damaged_bytes([samples.bag_file(storage)])

    return file_target(f"bag {storage.name.lower()}", file_name, cases, take, quick=60)


def _files() -> Iterator[Target]:
    yield _colmap(".bin")
    yield _colmap(".txt")
    for suffix in (".ply", ".pcd", ".las", ".laz"):
        yield file_target(
            f"cloud {suffix}",
            f"cloud{suffix}",
            lambda s=suffix: damaged_bytes(samples.clouds(s)),  # type: ignore[misc]
            read_cloud,
            quick=3,  # each is read in a process of its own
        )
    for suffix in (".ply", ".obj", ".stl", ".gltf"):
        yield file_target(
            f"mesh {suffix}",
            f"mesh{suffix}",
            lambda s=suffix: damaged_bytes(samples.meshes(s)),  # type: ignore[misc]
            lambda path: sample_mesh(read_mesh(path), 0.5),
            quick=100 if suffix == ".obj" else 3,
        )
    yield file_target(
        "image", "image", lambda: damaged_bytes(samples.pictures()), image_files.read, quick=40
    )
    yield _bag(StoragePlugin.MCAP, "bag.mcap")
    yield _bag(StoragePlugin.SQLITE3, "bag.db3")
    yield from _texts()
    yield from _structured()


QUERIES = "# queries\ndrive 1/000.png OPENCV 320 208 260 261 158 104 0.1 0.01 0 0\n"
QUERIES += "b.png SIMPLE_RADIAL 640 480 500 320 240 0.05\n"
POSES = "a.png 1 0 0 0 0 0 0\nb c.png 0.5 0.5 0.5 0.5 1.5 2.5 -3\n"
TUM = "# t tx ty tz qx qy qz qw\n1700000000.1 1 2 3 0 0 0 1\n1700000000.2 1 2 3 0 0 1 0\n"
PAIRS = "a.png drive 1/000.png\nb.png drive 1/001.png\n"
FIXES = "".join(f"drive 1/{i:03d}.png 1 0 0 0 {20 * i} {30 * (i % 2)} 0.3\n" for i in range(6))


def _texts() -> Iterator[Target]:
    readers: list[tuple[str, str, Callable[[Path], object]]] = [
        ("queries", QUERIES, hloc.read_cameras),
        ("poses by name", POSES, read_poses),
        ("trajectory TUM", TUM, read_tum),
        ("pairs", PAIRS, hloc.read_pairs),
    ]
    for name, text, take in readers:
        yield file_target(name, "file.txt", lambda t=text: damaged_text([t]), take)  # type: ignore[misc]

    def place(path: Path) -> object:
        return align_model(read_model(samples.dataset() / "colmap"), path, None, 3.0)

    yield file_target(
        "positions of images", "gps.txt", lambda: damaged_text([FIXES, POSES]), place, 30
    )


YAML = "pixloc_localizer:\n  ros__parameters:\n    map: /maps/a\n    threads: 2\n"
YAML += "    priors:\n      max_coast_s: 5.0\n      gnss_antenna_m: [0.0, 1.0, 2.0]\n"
YAML += "    alignment: {iterations: [20, 20, 20], robust_scale: 0.1}\n"
TRAINING = "data:\n  - {kind: photos, path: photos, points: 64}\nsteps: 6\nbatch: 2\n"
TRAINING += "size: [96, 64]\nmodel: {init: compact_seed}\noptimizer: {lr: 1.0e-4}\n"


def _structured() -> Iterator[Target]:
    yield Target("parameters", parameters, lambda values, _: config.from_flat(values), quick=300)
    yield file_target("parameter file", "p.yaml", lambda: damaged_text([YAML]), config.load)
    yield file_target(
        "training file", "t.yaml", lambda: damaged_text([TRAINING]), training_config.load
    )

    def metas() -> SearchStrategy[bytes]:
        return damaged_json([json.loads(samples.scene().read_text())])

    def pose_file(path: Path) -> object:
        return LastPoseFile(path, "0" * 64, lambda line: None).recall()

    last = {"map_sha256": "0" * 64, "stamp_ns": 1, "T_map_base": np.eye(4).tolist()}

    def images(path: Path) -> object:
        return read_posed_images(path, samples.scene().parent / "images")

    yield file_target("meta.json", "meta.json", metas, images)
    yield file_target("last pose", "last.json", lambda: damaged_json([last]), pose_file)
    yield file_target(
        "JSON", "any.json", lambda: damaged_json([last]), lambda p: read_json(p, DataError)
    )


def _weights() -> Iterator[Target]:
    packaged = weights.PACKAGED / "fast.safetensors"

    @st.composite
    def cases(draw: DrawFn) -> tuple[bytes, bytes]:
        content = draw(damaged_bytes([packaged.read_bytes()[:200_000], packaged.read_bytes()]))
        card = draw(damaged_json([json.loads(packaged.with_suffix(".json").read_text())]))
        return content, draw(st.sampled_from([card, b""]))

    def read(case: tuple[bytes, bytes], folder: Path) -> None:
        path = folder / "net.safetensors"
        path.write_bytes(case[0])
        if case[1]:
            path.with_suffix(".json").write_bytes(case[1])
        weights.load(str(path))

    yield Target("weights", cases, read, quick=20)

    def tensors() -> SearchStrategy[bytes]:
        state = {"model": {"a.weight": torch.zeros(3, 4), "b": torch.ones(2)}, "epoch": 3}
        zipped, plain = io.BytesIO(), io.BytesIO()
        torch.save(state, zipped)
        torch.save(state, plain, _use_new_zipfile_serialization=False)
        return damaged_bytes([zipped.getvalue(), plain.getvalue()])

    def load(path: Path) -> None:
        weights.load(str(path))

    yield file_target("checkpoint of PixLoc", "checkpoint_best.tar", tensors, load)


TARGETS = [*_files(), *_weights()]
