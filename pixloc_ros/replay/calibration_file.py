"""Calibrations as camera_calibration and the drivers of ROS read and write them: YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike
from pydantic import BaseModel, FiniteFloat, PositiveInt

from pixloc_ros.common import foreign_files
from pixloc_ros.common.ros_urls import local_path
from pixloc_ros.config import NodeConfig
from pixloc_ros.errors import DataError
from pixloc_ros.geometry.camera import Camera


class _MatrixData(BaseModel):
    data: list[FiniteFloat]


class _CalibrationFile(BaseModel):
    image_width: PositiveInt
    image_height: PositiveInt
    camera_matrix: _MatrixData
    distortion_model: str = "plumb_bob"
    distortion_coefficients: _MatrixData = _MatrixData(data=[])


def read_calibration(path: Path) -> Camera:
    """Read a camera from a YAML file as camera_calibration writes it. Raises DataError."""
    content = foreign_files.read_yaml(path, DataError)
    with foreign_files.refusing(DataError, path, "is it written by camera_calibration?"):
        file = _CalibrationFile.model_validate(content)
        K, D = file.camera_matrix.data, file.distortion_coefficients.data
        if len(K) != 9:
            raise ValueError(f"camera_matrix has {len(K)} numbers instead of 9")
        model = file.distortion_model
        return Camera.from_ros(model, file.image_width, file.image_height, K, D)


def read_calibrations(config: NodeConfig) -> dict[str, Camera]:
    """Read the files of `node.camera_info_url`, by the camera's name; none if it is empty.

    Raises DataError.
    """
    urls = config.camera_info_urls.items()
    return {name: read_calibration(local_path(url, DataError)) for name, url in urls}


def calibration_yaml(camera: Camera, name: str) -> str:
    """Write a camera as such a file, for images that are not rectified."""
    model, coefficients = camera.to_ros()
    file = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": name,
        "camera_matrix": _matrix(camera.K()),
        "distortion_model": model,
        "distortion_coefficients": _matrix([coefficients]),
        "rectification_matrix": _matrix(np.eye(3)),
        "projection_matrix": _matrix(np.hstack([camera.K(), np.zeros((3, 1))])),
    }
    return yaml.safe_dump(file, default_flow_style=None, sort_keys=False)


def _matrix(values: ArrayLike) -> dict[str, Any]:
    matrix = np.asarray(values, float)
    rows, columns = matrix.shape
    return {"rows": rows, "cols": columns, "data": matrix.ravel().tolist()}
