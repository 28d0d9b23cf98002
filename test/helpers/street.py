"""A generated street with everything that a drive through it needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset
from pixloc_ros.demo.street.sessions import SESSIONS
from pixloc_ros.demo.street.street import Street
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_writer import create_bag

SMALL = DatasetOptions(length_m=12.0, width=320, height=192, workers=1)


@cache
def small_street(session: str) -> Street:
    """Generate the world of SMALL as it is in a session, once per process: it takes seconds."""
    return SMALL.generate(SESSIONS[session])


def write_street(folder: Path, options: DatasetOptions) -> Path:
    """map/, bag/ and bag.truth.txt of a generated drive, below a folder."""
    datum = Datum(latitude_deg=49.0, longitude_deg=8.4, altitude_m=110.0, yaw_deg=25.0)
    write_dataset(folder / "data", options)
    mapping, drive = folder / "data" / "mapping", folder / "data" / "drive"
    posed = read_posed_images(drive / "meta.json", drive / "images")
    source = ColmapSource(model_dir=mapping / "colmap", images=mapping / "images")
    build_map(source, folder / "map", BuildOptions(datum=datum, T_base_cam=posed.T_base_cam))
    create_bag(posed, folder / "bag", BagOptions(compressed=False, datum=datum))
    return folder
