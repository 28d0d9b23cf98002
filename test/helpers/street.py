"""A generated street with everything that a drive through it needs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pixloc_ros.demo.street.dataset import DatasetOptions, write_dataset
from pixloc_ros.demo.street.sessions import SESSIONS, StreetSession
from pixloc_ros.demo.street.street import Street
from pixloc_ros.maps.build.builder import BuildOptions, build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.datum import Datum
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.replay.bag_options import BagOptions
from pixloc_ros.replay.bag_writer import create_bag


class KeptStreet(DatasetOptions):
    """A street that is generated once per process and session: it takes seconds."""

    def generate(self, session: StreetSession) -> Street:
        return _generated(self.seed, self.length_m, session)


@lru_cache(maxsize=2)
def _generated(seed: int, length_m: float, session: StreetSession) -> Street:
    return DatasetOptions(seed=seed, length_m=length_m).generate(session)


SMALL = KeptStreet(length_m=12.0, width=320, height=192, workers=1)


def small_street(session: str) -> Street:
    """The world of SMALL as it is in a session."""
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
