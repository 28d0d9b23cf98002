"""Cameras of COLMAP's database, an SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.errors import MapError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap_records import CAMERA_MODELS

QUERY = """SELECT images.name, cameras.model, cameras.width, cameras.height, cameras.params
           FROM images JOIN cameras USING (camera_id)"""


def read_database_cameras(path: Path) -> dict[str, Camera]:
    """Read the camera of each image by name; raises MapError for a file that is no database."""
    if not path.is_file():
        raise MapError(f"{path}: no such file; expected COLMAP's database")
    made: dict[tuple, Camera] = {}
    cameras = {}
    with refusing(MapError, path, "is it COLMAP's database?"):
        for name, *calibration in _rows(path):
            key = tuple(calibration)
            if key not in made:
                made[key] = _camera(path, *calibration)
            cameras[name] = made[key]
    return cameras


def _rows(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        return database.execute(QUERY).fetchall()


def _camera(path: Path, model_id: int, width: int, height: int, params: bytes) -> Camera:
    if model_id not in CAMERA_MODELS:
        raise MapError(f"{path}: camera model {model_id} is not one of COLMAP's")
    return Camera.from_colmap(
        CAMERA_MODELS[model_id][0], width, height, np.frombuffer(params, "<f8").tolist()
    )
