"""Scale and place a COLMAP model by the known positions of some of its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixloc_ros.common import foreign_files
from pixloc_ros.errors import DataError, MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.geometry.trajectory import read_poses
from pixloc_ros.maps.build import georeference
from pixloc_ros.maps.build.georeference import AlignmentReport
from pixloc_ros.maps.datum import AnyDatum, Datum
from pixloc_ros.maps.files.colmap import ColmapModel

GNSS_COLUMNS = "name latitude longitude altitude"


def align_model(
    model: ColmapModel,
    file: Path,
    datum: AnyDatum | None,
    tolerance_m: float,
    antenna_cam: Matrix | None = None,
) -> tuple[ColmapModel, AnyDatum | None, AlignmentReport]:
    """Return the model in the map's frame and metres, the map's datum, and how well they fit.

    file: positions in the map (meta.json, or poses by image name), or GNSS fixes, lines `name
    latitude longitude altitude` (WGS 84). Without a datum the first fix becomes it, x to the east.
    antenna_cam: (3,) metres, the antenna that took the fixes, in the camera's frame.
    Raises DataError for a file that cannot be read, MapError where it does not fit the model.
    """
    offset = np.zeros(3)
    if file.suffix == ".json":
        positions = _from_meta(file)
    elif _is_gnss(file):
        fixes = _read_fixes(file)
        origin = datum = datum or _datum_at(next(iter(fixes.values())))
        positions = {name: origin.position_map(*fix) for name, fix in fixes.items()}
        offset = offset if antenna_cam is None else antenna_cam
    else:
        positions = {name: se3.inverse(T)[:3, 3] for name, T in read_poses(file).items()}
    images = [image for image in model.images if image.name in positions]
    if not images:
        raise MapError(
            f"{file} names none of the model's images, as '{model.images[0].name}'; the names must "
            f"be those of the model"
        )
    names = [image.name for image in images]
    T_model_cam = se3.inverse([image.T_cam_world for image in images])
    in_map = np.stack([positions[name] for name in names])
    found, report = georeference.fit_antenna(names, T_model_cam, in_map, offset, tolerance_m)
    return georeference.apply(found, model), datum, report


def _from_meta(file: Path) -> dict[str, Matrix]:
    content = foreign_files.read_json(file, DataError)
    try:
        images = content["images"]
        return {
            entry["file"]: np.array(entry["T_world_cam"], np.float64).reshape(-1, 4)[:3, 3]
            for entry in images
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{file}: missing or malformed {error}; see docs/guide/bags.md") from None


def _lines(file: Path) -> list[str]:
    lines = foreign_files.read_text(file, DataError).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _is_gnss(file: Path) -> bool:
    lines = _lines(file)
    return bool(lines) and len(_words(lines[0])) == 4


def _words(line: str) -> list[str]:
    """A name, which may have spaces where commas separate, and numbers."""
    return [word.strip() for word in line.split(",")] if "," in line else line.split()


def _read_fixes(file: Path) -> dict[str, tuple[float, float, float]]:
    fixes = {}
    for number, line in enumerate(_lines(file), start=1):
        words = _words(line)
        try:
            name, (latitude, longitude, altitude) = words[0], map(float, words[1:])
            Datum(latitude_deg=latitude, longitude_deg=longitude, altitude_m=altitude, yaw_deg=0.0)
        except (ValueError, MapError):
            if number == 1 and words[0] == "name":
                continue
            raise DataError(f"{file}: '{line}' is not `{GNSS_COLUMNS}` in degrees, m") from None
        fixes[name] = (latitude, longitude, altitude)
    if not fixes:
        raise DataError(f"{file} holds no fixes; expected lines `{GNSS_COLUMNS}`")
    return fixes


def _datum_at(fix: tuple[float, float, float]) -> Datum:
    latitude, longitude, altitude = fix
    return Datum(latitude_deg=latitude, longitude_deg=longitude, altitude_m=altitude, yaw_deg=0.0)
