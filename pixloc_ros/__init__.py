"""pixloc_ros: localize a camera on a prior map by aligning deep features.

The public names below are imported on first use, so that `import pixloc_ros` and `import
pixloc_ros.msg` take no time. docs/guide/python.md shows how to use them.
"""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixloc_ros.config import Config
    from pixloc_ros.geometry.camera import Camera
    from pixloc_ros.localizer import Localizer
    from pixloc_ros.maps.build.builder import BuildOptions, build_map
    from pixloc_ros.maps.build.from_bag.source import DriveSource
    from pixloc_ros.maps.build.sources import (
        ColmapSource,
        DepthImagesSource,
        LidarSource,
        MeshSource,
        PosedImagesSource,
        Positions,
    )
    from pixloc_ros.maps.datum import Datum
    from pixloc_ros.maps.map import Map
    from pixloc_ros.replay.recorded_drive import read_drives
    from pixloc_ros.session import Session
    from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status

__version__ = "0.1.0"

__all__ = [
    "BuildOptions",
    "Camera",
    "ColmapSource",
    "Config",
    "Datum",
    "DepthImagesSource",
    "DriveSource",
    "Estimate",
    "Frame",
    "LidarSource",
    "Localizer",
    "Map",
    "MeshSource",
    "PosePrior",
    "PosedImagesSource",
    "Positions",
    "Reason",
    "Session",
    "Status",
    "build_map",
    "read_drives",
]

# In a development tree the generated pixloc_ros.msg lies in an overlay, not beside these sources.
__path__ = extend_path(__path__, __name__)

_MODULE_OF = {
    "DriveSource": "maps.build.from_bag.source",
    "BuildOptions": "maps.build.builder",
    "Camera": "geometry.camera",
    "ColmapSource": "maps.build.sources",
    "Config": "config",
    "Datum": "maps.datum",
    "DepthImagesSource": "maps.build.sources",
    "Estimate": "types",
    "Frame": "types",
    "LidarSource": "maps.build.sources",
    "Localizer": "localizer",
    "Map": "maps.map",
    "MeshSource": "maps.build.sources",
    "PosePrior": "types",
    "PosedImagesSource": "maps.build.sources",
    "Positions": "maps.build.sources",
    "Reason": "types",
    "Session": "session",
    "Status": "types",
    "build_map": "maps.build.builder",
    "read_drives": "replay.recorded_drive",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pixloc_ros' has no attribute '{name}'")
    value = getattr(import_module(f"pixloc_ros.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
