"""Localize a drive on a map, and give the frames whose poses were verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pixloc_ros.common.image_files import Image
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.config import Config
from pixloc_ros.errors import BagError
from pixloc_ros.evaluation.report import LoadImage
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import PosedImages, read_image
from pixloc_ros.maps.files.recorded_drive import RecordedCamera
from pixloc_ros.maps.verified_frames import DriveSession, VerifiedFrame
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.replay.runner import image_loader, localize_drive
from pixloc_ros.sensors.topics import Topics
from pixloc_ros.types import Estimate


@contextmanager
def localized_bag(
    bag: Path, config: Config, topics: Topics | None = None, progress: Progress = silent
) -> Iterator[DriveSession]:
    """Localize all images of a bag, as a replay does, and yield those that were accepted.

    For a rig, they are the images of the lead camera. They can be read while the bag is open.
    Raises PixlocError for a bag or a map that cannot be used.
    """
    localizer = Localizer(config)
    (recorded,) = read_drives([bag], config, topics, localizer.map.datum)
    cameras = recorded.cameras
    by_name = {camera.name: camera for camera in cameras}
    with BagReader.configured(bag, config.node, topics) as reader:
        answers = localize_drive(reader, localizer, progress)
        estimates = [answer.estimate for answer in answers]
        load = image_loader(reader, config)
        frames = [
            _frame(load, estimate, by_name.get(next(iter(estimate.cameras), ""), cameras[0]))
            for estimate in estimates
            if estimate.ok
        ]
        yield DriveSession(bag.stem, tuple(frames), len(estimates), notes=recorded.notes)


def posed_session(name: str, drive: PosedImages) -> DriveSession:
    """Make a session of images whose poses were found and verified elsewhere."""
    frames = [
        VerifiedFrame(path.stem, int(stamp_ns), camera, T, drive.T_base_cam, _reading(path, camera))
        for path, stamp_ns, camera, T in zip(
            drive.files, drive.stamps_ns, drive.cameras, drive.T_map_base, strict=True
        )
    ]
    return DriveSession(name, tuple(frames), len(frames), localized=False)


def _reading(path: Path, camera: Camera) -> Callable[[], Image]:
    return partial(read_image, path, camera)


def _frame(load: LoadImage, estimate: Estimate, taken_by: RecordedCamera) -> VerifiedFrame:
    assert estimate.T_map_base is not None  # it was accepted
    return VerifiedFrame(
        name=f"{taken_by.name}{estimate.stamp_ns}",
        stamp_ns=estimate.stamp_ns,
        camera=taken_by.camera,
        T_map_base=estimate.T_map_base,
        T_base_cam=taken_by.T_base_cam,
        read_image=partial(_read, load, estimate),
    )


def _read(load: LoadImage, estimate: Estimate) -> Image:
    image = load(estimate)
    if image is None:
        raise BagError(f"the image of {estimate.stamp_ns} cannot be read again from the bag")
    return image
