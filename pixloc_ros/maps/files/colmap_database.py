"""Cameras of COLMAP's database, an SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from pixloc_ros.errors import MapError
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap_records import CAMERA_MODELS

QUERY = """SELECT images.name, cameras.model, cameras.width, cameras.height, cameras.params
           FROM images JOIN cameras USING (camera_id)"""


def read_database_cameras(path: Path) -> dict[str, Camera]:
    """Read the camera of each image by name; raises MapError for a file that is no database."""
    if not path.is_file():
        raise MapError(f"{path}: no such file; expected COLMAP's database")
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with database:
            rows = database.execute(QUERY).fetchall()
        database.close()
    except sqlite3.Error as error:
        raise MapError(f"{path} cannot be read as COLMAP's database ({error})") from None
    made: dict[tuple, Camera] = {}
    cameras = {}
    for name, *calibration in rows:
        key = tuple(calibration)
        if key not in made:
            made[key] = _camera(path, *calibration)
        cameras[name] = made[key]
    return cameras


def _camera(path: Path, model_id: int, width: int, height: int, params: bytes) -> Camera:
    if model_id not in CAMERA_MODELS:
        raise MapError(f"{path}: camera model {model_id} is not one of COLMAP's")
    return Camera.from_colmap(
        CAMERA_MODELS[model_id][0], width, height, np.frombuffer(params, "<f8").tolist()
    )
