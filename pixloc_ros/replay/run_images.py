"""Read a bag's images for the frames of a run, and draw the map's points at the poses found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config import Config, load
from pixloc_ros.evaluation.frames import FrameResult
from pixloc_ros.evaluation.map_overlay import MapOverlay
from pixloc_ros.maps.map import Map
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.replay.runner import CONFIG_FILE
from pixloc_ros.sensors.events import ImageEvent
from pixloc_ros.sensors.topics import Topics

Image = NDArray[np.uint8]


def run_images(
    bag: Path,
    run: Path,
    frames: Sequence[FrameResult],
    map_: Map | None,
    topics: Topics | None = None,
) -> Iterator[tuple[int, Callable[[], Image]]]:
    """Yield each image's stamp, and a function that decodes it and draws the map's points on it.

    run: folder with the run's settings; without them the defaults apply.

    Nothing is drawn without a map, nor for a rig. Raises BagError and ConfigError.
    """
    settings = run / CONFIG_FILE
    config = load(settings) if settings.exists() else Config()
    of_stamp = {frame.stamp_ns: frame for frame in frames}
    overlay = None
    if map_ is not None and not config.node.cameras:
        (camera,) = read_drives([bag], config, topics)[0].cameras
        overlay = MapOverlay(map_, camera.camera, camera.T_base_cam)
    with BagReader.configured(bag, config.node, topics) as reader:
        for event in reader.events(parts=("image",)):
            if not isinstance(event, ImageEvent):
                continue
            stamp_ns = event.stamp_ns + config.node.camera_time_offset_ns
            yield stamp_ns, partial(_drawn, event, overlay, of_stamp.get(stamp_ns))


def _drawn(event: ImageEvent, overlay: MapOverlay | None, frame: FrameResult | None) -> Image:
    """Decode the image of an event and draw on it. Raises DataError."""
    image_rgb = event.decode(None)
    return image_rgb if overlay is None or frame is None else overlay.draw(image_rgb, frame)
