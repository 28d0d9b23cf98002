"""A vehicle with two cameras, in replays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.events import with_image
from helpers.rig_bag import write_rig_bag
from pixloc_ros import BuildOptions, DriveSource, read_drives
from pixloc_ros.config import from_flat
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import BagError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.builder import BuildContext
from pixloc_ros.maps.build.georeference import fit
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.sensors.events import ImageEvent
from pixloc_ros.session import Session
from pixloc_ros.types import Estimate, Reason

pytestmark = pytest.mark.slow
CAMERAS = ("front", "left")


@pytest.fixture(scope="module")
def rig_bag(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rig_bag(street, tmp_path_factory.mktemp("rig") / "bag")


@pytest.fixture(scope="module")
def localizer(street: Path) -> Localizer:
    settings = {"map": str(street / "map"), "threads": 1, "node.cameras": ",".join(CAMERAS)}
    return Localizer(from_flat(settings))


def replayed(localizer: Localizer, events: list) -> list[Estimate]:
    return list(Session(localizer).run(events))


@pytest.fixture(scope="module")
def events(rig_bag: Path) -> list:
    with BagReader(rig_bag, cameras=CAMERAS) as reader:
        return list(reader)


def error_m(estimate: Estimate, truth: Trajectory) -> float:
    T_true = truth.at(estimate.stamp_ns)
    assert estimate.T_map_base is not None, estimate.message
    return float(se3.distance_m(estimate.T_map_base, T_true))


def test_a_bag_with_two_cameras_gives_one_pose_for_both(localizer, events, truth) -> None:
    estimates = replayed(localizer, events)
    assert len(estimates) == len(truth.stamps_ns)
    assert [e.cameras for e in estimates] == [CAMERAS] * len(estimates)
    assert max(error_m(e, truth) for e in estimates) < 0.05


def test_the_motion_between_the_cameras_is_accounted_for(localizer, events, truth) -> None:
    """The left images are 8 ms, 6 cm on the way, late: without odometry they pull the pose."""
    moving = replayed(localizer, events)
    late = [e for e in moving if e.ok]
    along = [(se3.inverse(truth.at(e.stamp_ns)) @ e.T_map_base)[0, 3] for e in late]
    assert abs(np.median(along)) < 0.006


def test_a_camera_that_fails_does_not_stop_the_other(localizer, events, truth) -> None:
    lefts = [e for e in events if isinstance(e, ImageEvent) and e.camera_name == "left"]
    lost, hung = lefts[2:5], {id(e) for e in lefts[8:]}
    fault = [
        with_image(e, lefts[7].image_rgb) if id(e) in hung else e
        for e in events
        if not any(e is gone for gone in lost)
    ]
    estimates = replayed(localizer, fault)
    assert all(e.ok for e in estimates), [e.message for e in estimates]
    seen = [e.cameras for e in estimates]
    assert seen[2:5] == [("front",)] * 3
    assert seen[:2] + seen[6:8] == [CAMERAS] * 4
    assert seen[8:] == [("front",)] * len(seen[8:]), "it hangs, and the vehicle moves on"
    assert max(error_m(e, truth) for e in estimates) < 0.05


def test_a_camera_that_hangs_alone_gives_no_pose(localizer, events) -> None:
    alone = [e for e in events if getattr(e, "camera_name", "") != "left"]
    images = [e for e in alone if isinstance(e, ImageEvent)]
    hung = {id(e) for e in images[4:]}
    alone = [with_image(e, images[3].image_rgb) if id(e) in hung else e for e in alone]
    estimates = replayed(localizer, alone)
    assert all(e.ok for e in estimates[1:4])
    assert {e.reason for e in estimates[4:]} == {Reason.FROZEN_IMAGE}


def test_a_camera_that_the_bag_lacks_is_named(rig_bag: Path) -> None:
    with pytest.raises(BagError, match=r"/right/image.*camera 'right'.*/front/image"):
        BagReader(rig_bag, cameras=("front", "right"))


def test_a_drive_of_two_cameras_is_mapped_in_chunks(rig_bag: Path, truth, tmp_path) -> None:
    """Each camera on its own: where the vehicle then was is right by the images of both."""
    mapping = MappingConfig(
        keyframe_spacing_m=2.0, chunk_keyframes=8, neighbours=2, places=0, rounds=1
    )
    drives = read_drives([rig_bag], from_flat({"node.cameras": ",".join(CAMERAS)}))
    lines: list[str] = []
    source = DriveSource(drives=drives, mapping=mapping)
    model, _ = source.model(BuildOptions(), BuildContext(tmp_path, report=lines.append))
    assert "2 chunks joined" in lines[0]
    stamps_ns = [int(Path(image.name).stem) for image in model.images]
    T_base_cam = [drives[0].camera(Path(i.name).parent.name).T_base_cam for i in model.images]
    T_map_base = se3.inverse(T_base_cam @ np.stack([i.T_cam_world for i in model.images]))
    T_true = np.stack([truth.at(stamp_ns) for stamp_ns in stamps_ns])
    similarity = fit(T_map_base[:, :3, 3], T_true[:, :3, 3])
    off_m = similarity.points(T_map_base[:, :3, 3]) - T_true[:, :3, 3]
    assert {Path(image.name).parent.name for image in model.images} == set(CAMERAS)
    assert similarity.scale == pytest.approx(1.0, rel=0.03)
    assert np.median(np.linalg.norm(off_m, axis=-1)) < 0.03
