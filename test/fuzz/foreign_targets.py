"""Files of other projects (hloc, COLMAP, ACE, VisualSFM), and those that runs leave behind."""

from __future__ import annotations

import io
import json
import pickle
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from fuzz import samples
from fuzz.damage import STRINGS, WORDS, damaged_bytes, damaged_json, damaged_text
from fuzz.harness import Target, file_target
from helpers.wall import CAMERA
from pixloc_ros.alignment.wrong_probability import read_model
from pixloc_ros.config import PriorsConfig
from pixloc_ros.evaluation.frames import FrameResult, read_frames
from pixloc_ros.evaluation.metrics import evaluate
from pixloc_ros.evaluation.sources import load_provenance
from pixloc_ros.evaluation.verification_fit import ShotRecord, read_records
from pixloc_ros.features.weights import PACKAGED
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.files.colmap_database import read_database_cameras
from pixloc_ros.maps.files.hloc_logs import read_logs
from pixloc_ros.maps.files.nvm import read_nvm
from pixloc_ros.priors import file_priors
from pixloc_ros.ros import map_root
from pixloc_ros.training import checkpoint
from pixloc_ros.training.config import TrainConfig

NAMES = ("drive 1/000.png", "b.png")
ACE = "a.png 1 0 0 0 0 0 0 350.0 1000\nb.png 0.5 0.5 0.5 0.5 1.5 2.5 -3 350.0 900\n"
PLANAR = "a.png 1.0 2.0 30.0 0.5 0.5 2.0\nb.png 1.0 2.0 -30.0 0.5 0.0 0.0 0.5 0.0 4.0\n"
NVM = "NVM_V3\n\n2\na.png 500 1 0 0 0 0 0 0 0 0\nb.png 500 1 0 0 0 1 0 0 0.1 0\n\n"
NVM += "1\n0.5 0.25 4 255 0 0 2 0 0 1.5 2.5 1 3 -4.5 2.0\n"


def _descriptors() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name in NAMES:
            file[f"{name}/{hloc.DESCRIPTOR}"] = np.linspace(0, 1, 16, dtype=np.float16)
    return content.getvalue()


def _logs() -> bytes:
    log = {
        "PnP_ret": {"success": True, "qvec": np.array([1.0, 0, 0, 0]), "tvec": np.zeros(3)},
        "db": [1, 2],
        "points3D_ids": [5, 6, 7],
        "keypoints_query": np.zeros((3, 2), np.float32),
        "keypoint_index_to_db": (np.arange(3), [(5, [0]), (6, [0, 1]), (7, [1])]),
    }
    return pickle.dumps({"features": "x", "loc": dict.fromkeys(NAMES, log)}, protocol=4)


def _database() -> bytes:
    database = sqlite3.connect(":memory:")
    database.executescript(
        "CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY, model INTEGER, width INTEGER, "
        "height INTEGER, params BLOB, prior_focal_length INTEGER);"
        "CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT, camera_id INTEGER);"
    )
    params = np.array([500.0, 320.0, 240.0, 0.01]).tobytes()
    database.execute("INSERT INTO cameras VALUES (1, 2, 640, 480, ?, 1)", (params,))
    database.executemany("INSERT INTO images VALUES (?, ?, 1)", enumerate(NAMES, 1))
    database.commit()
    return database.serialize()


def _foreign() -> Iterator[Target]:
    yield file_target(
        "descriptors HDF5",
        "features.h5",
        lambda: damaged_bytes([_descriptors()]),
        lambda path: hloc.read_descriptors([path], NAMES),
    )
    yield file_target("logs of hloc", "logs.pkl", lambda: damaged_bytes([_logs()]), read_logs)
    yield file_target(
        "COLMAP database", "db.db", lambda: damaged_bytes([_database()]), read_database_cameras
    )
    cameras = {"a.png": CAMERA, "b.png": CAMERA}
    yield file_target(
        "NVM", "model.nvm", lambda: damaged_text([NVM]), lambda path: read_nvm(path, cameras)
    )
    names = ["a.png", "b.png"]
    yield file_target(
        "poses of ACE",
        "poses.txt",
        lambda: damaged_text([ACE]),
        lambda path: file_priors.read_ace_priors(samples.level_map(), path, names, (1.0, 2.0)),
    )
    config = PriorsConfig()
    yield file_target(
        "poses in the plane",
        "poses.txt",
        lambda: damaged_text([PLANAR]),
        lambda path: file_priors.read_planar_priors(samples.level_map(), path, names, config),
    )


SHOT = ShotRecord(
    place="a", session="day", prior="2,3", frame="1", reason="", evidence={"cost": 0.1}
)
FRAME = {"stamp_ns": 1, "name": "a.png", "status": "FAILED", "reason": "", "message": ""}


def _own() -> Iterator[Target]:
    model = json.loads((PACKAGED / "compact_seed.verification.json").read_text())
    yield file_target("verification", "v.json", lambda: damaged_json([model]), read_model)
    shot = json.loads(SHOT.model_dump_json())
    yield file_target(
        "records of shots", "r.jsonl", lambda: damaged_json([shot]), lambda p: read_records([p])
    )
    yield file_target("frames", "frames.jsonl", lambda: damaged_json([FRAME]), read_frames)
    summary = json.loads(evaluate([FrameResult.model_validate(FRAME)]).model_dump_json())
    yield file_target(
        "summary",
        "summary.json",
        lambda: damaged_json([summary]),
        lambda path: load_provenance(path.parent),
    )
    yield Target("checkpoint of training", _checkpoints, _resume, quick=60)
    yield Target("name of a map", _map_names, _find_map)


TRAINING = TrainConfig.model_validate({"data": [{"kind": "photos", "path": "photos"}]})


@st.composite
def _checkpoints(draw: DrawFn) -> bytes:
    """A whole one with other figures in it, or bytes of one that was damaged."""
    network, progress = torch.nn.Linear(2, 2), checkpoint.TrainingProgress(steps=3)
    adam = torch.optim.Adam(network.parameters())
    path = samples.folder() / "checkpoint.safetensors"
    if not path.exists():
        checkpoint.write(path, TRAINING, progress, {"network": network}, adam)
    if draw(st.booleans()):
        return draw(damaged_bytes([path.read_bytes()]))
    metadata = {
        "progress": draw(damaged_json([asdict(progress)])).decode(errors="replace"),
        "config": TRAINING.model_dump_json(),
    }
    return safetensors.torch.save(safetensors.torch.load(path.read_bytes()), metadata)


def _resume(content: bytes, folder: Path) -> None:
    (folder / "checkpoint.safetensors").write_bytes(content)
    network = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(network.parameters())
    path = folder / "checkpoint.safetensors"
    checkpoint.read(path, TRAINING, 1, {"network": network}, adam)


def _map_names() -> SearchStrategy[str]:
    parts = st.sampled_from(["town", "..", ".", "", "link", "file", "~", "\0", *STRINGS, *WORDS])
    return st.lists(parts, min_size=1, max_size=4).map("/".join)


def _find_map(name: str, folder: Path) -> None:
    """A name given to ~/load_map leads to a folder below the root, or nowhere."""
    root = folder / "maps"
    (root / "town").mkdir(parents=True)
    (folder / "outside").mkdir()
    (root / "link").symlink_to(folder / "outside")
    (root / "file").write_text("")
    found = map_root.find(str(root), name)
    assert found.is_relative_to(root) and found.is_dir()


TARGETS = [*_foreign(), *_own()]
