"""Options of a bag that is written with simulated sensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pixloc_ros.errors import BagError, DataError
from pixloc_ros.evaluation.degradation import degradation
from pixloc_ros.maps.datum import Datum
from pixloc_ros.replay import simulated_sensors
from pixloc_ros.replay.video_encoder import ENCODERS
from pixloc_ros.sensors.topics import Topics
from pixloc_ros.sensors.video import require_decoder

STORAGES = ("mcap", "sqlite3")


@dataclass(frozen=True, slots=True)
class BagOptions:
    """What to write to the bag, and under which names."""

    topics: Topics = field(default_factory=Topics)
    compressed: bool = True
    video: str = ""  # h264 or h265 instead of single images
    storage: str = "mcap"
    degrade: str = ""
    gnss: Literal["fix", "pose", "none"] = "fix"
    receiver: str = "ublox"
    datum: Datum | None = None
    initial_pose: bool = False
    scale: float = 1.0
    every: int = 1
    exclude_every: int = 0
    seed: int = 0
    map_frame: str = "map"
    odom_frame: str = "odom"
    base_frame: str = "base_link"
    camera_frame: str = "camera_optical"
    gnss_frame: str = "base_link"  # where the simulated antenna is

    def check(self) -> None:
        """Raise ConfigError or BagError for impossible options, DataError if PyAV is missing."""
        if self.degrade:
            degradation(self.degrade)
        if self.video:
            if self.video not in ENCODERS:
                known = ", ".join(ENCODERS)
                raise BagError(f"video '{self.video}' is not one of {known}")
            require_decoder()
        if self.storage not in STORAGES:
            raise BagError(f"storage '{self.storage}' is not one of {', '.join(STORAGES)}")
        if self.receiver not in simulated_sensors.RECEIVERS:
            known = ", ".join(simulated_sensors.RECEIVERS)
            raise BagError(f"GNSS receiver '{self.receiver}' is not one of {known}")
        if self.gnss == "fix" and self.datum is None:
            raise BagError("GNSS fixes need the map's place on earth: --datum, or --gnss pose")
        if not 0.0 < self.scale <= 1.0:
            raise BagError(f"images can be reduced, not enlarged: --scale {self.scale}")

    def selected(self, count: int) -> np.ndarray:
        """Return the indices of the frames to write. Raises DataError if none is left."""
        index = np.arange(count)
        keep = index % max(1, self.every) == 0
        if self.exclude_every > 0:
            keep &= index % self.exclude_every != 0
        if not keep.any():
            raise DataError(
                f"no image of {count} is left with --every {self.every} "
                f"and --exclude-every {self.exclude_every}"
            )
        return index[keep]
