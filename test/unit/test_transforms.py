"""Chains of transforms: through /tf_static, and through what moves, at a stamp."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.priors import at_s, pose
from pixloc_ros.config import NodeConfig
from pixloc_ros.geometry import se3
from pixloc_ros.sensors.events import StampedTransform, StaticTransformsEvent
from pixloc_ros.sensors.moving_transforms import MovingTransforms
from pixloc_ros.sensors.static_transforms import MAX_FRAMES, StaticTransforms
from pixloc_ros.sensors.vehicle_frames import VehicleFrames


def test_transforms_chain_in_both_directions() -> None:
    T_base_mast = se3.make(np.eye(3), [1.0, 0, 2])
    T_mast_cam = se3.base_from_optical()
    transforms = StaticTransforms()
    transforms.add("base_link", "mast", T_base_mast)
    transforms.add("/mast", "cam", T_mast_cam)
    np.testing.assert_allclose(transforms.lookup("base_link", "cam"), T_base_mast @ T_mast_cam)
    np.testing.assert_allclose(
        transforms.lookup("cam", "base_link"), se3.inverse(T_base_mast @ T_mast_cam), atol=1e-15
    )
    assert transforms.lookup("base_link", "lidar") is None
    np.testing.assert_array_equal(transforms.lookup("lidar", "lidar"), np.eye(4))


def test_transforms_that_are_none_are_refused() -> None:
    transforms = StaticTransforms()
    assert not transforms.add("a", "b", np.full((4, 4), np.nan))
    assert not transforms.add("a", "a", np.eye(4))
    assert not transforms.add("", "b", np.eye(4))
    assert transforms.frames == ()


@pytest.mark.parametrize(
    ("settings", "joined", "source"),
    [
        ({}, True, "/tf_static joins 'base_link' to 'cam'"),
        ({}, False, "/tf_static does not join 'base_link' to 'cam'"),
        ({"identity_extrinsics": True}, False, "node.identity_extrinsics stands in for it"),
        ({"camera_mounting": (0.0, 0, 1.5, 0, 0, 0, 1)}, False, "node.camera_mounting is set"),
    ],
)
def test_the_source_of_a_mounting_is_the_one_that_is_used(
    settings: dict[str, Any], joined: bool, source: str
) -> None:
    frames, config = VehicleFrames(on_refused=print), NodeConfig(**settings)
    if joined:
        mast = StampedTransform(0, "base_link", "cam", se3.make(np.eye(3), [1.0, 0, 2]))
        frames.add_static(StaticTransformsEvent((mast,)))
    known = frames.camera_mounting("cam", config) is not None
    assert known == (joined or bool(settings))
    assert source in frames.mounting_source("cam", config)


def moved(
    transforms: MovingTransforms, stamp_s: float, parent: str, child: str, T: np.ndarray
) -> None:
    transforms.admit(StampedTransform(at_s(stamp_s), parent, child, T))


@pytest.fixture
def tree() -> MovingTransforms:
    """earth -> map (fixed) -> odom -> footprint (moving) -> base (fixed), for 2 s."""
    static = StaticTransforms()
    static.add("earth", "/map", pose(1000.0))
    static.add("footprint", "base", se3.make(np.eye(3), [0.0, 0.0, 0.5]))
    transforms = MovingTransforms(static)
    for tick in range(5):
        moved(transforms, 1 + tick / 2, "map", "odom", pose(5.0, 0.0, 90.0))
        moved(transforms, 1 + tick / 2, "odom", "/footprint", pose(10.0 * tick))
    return transforms


def test_chains_lead_through_moving_and_fixed_transforms_both_ways(tree: MovingTransforms) -> None:
    T_map_base = tree.lookup("map", "base", at_s(1.75))
    np.testing.assert_allclose(T_map_base[:3, 3], [5.0, 15.0, 0.5], atol=1e-9)
    np.testing.assert_allclose(tree.lookup("base", "map", at_s(1.75)), se3.inverse(T_map_base))
    T_earth_base = tree.lookup("earth", "base", at_s(1.75))
    np.testing.assert_allclose(T_earth_base[:3, 3], [1005.0, 15.0, 0.5], atol=1e-9)
    np.testing.assert_allclose(tree.lookup("odom", "odom", at_s(99.0)), np.eye(4))


def test_what_is_not_known_at_a_stamp_is_not_made_up(tree: MovingTransforms) -> None:
    assert tree.lookup("map", "moon", at_s(2.0)) is None
    assert tree.lookup("", "base", at_s(2.0)) is None
    assert tree.lookup("map", "base", at_s(0.9)) is None
    assert tree.lookup("map", "base", at_s(3.4)) is not None
    assert tree.lookup("map", "base", at_s(3.6)) is None
    moved(tree, 4.0, "map", "odom", np.full((4, 4), np.nan))
    assert tree.newest_ns("map", "odom") == at_s(3.0)


def test_the_newest_stamp_of_a_chain_is_that_of_its_slowest_part(tree: MovingTransforms) -> None:
    moved(tree, 3.2, "odom", "footprint", pose(44.0))
    assert tree.newest_ns("odom", "base") == at_s(3.2)
    assert tree.newest_ns("map", "base") == at_s(3.0)
    assert tree.newest_ns("footprint", "base") is None
    assert tree.newest_ns("map", "moon") is None


def test_late_transforms_take_their_place_and_old_ones_are_forgotten(
    tree: MovingTransforms,
) -> None:
    moved(tree, 2.75, "odom", "footprint", pose(0.0))
    assert tree.lookup("odom", "footprint", at_s(2.75))[0, 3] == pytest.approx(0.0)
    for stamp_s in (12.0, 12.1):
        moved(tree, stamp_s, "odom", "footprint", pose(70.0))
    assert tree.lookup("odom", "footprint", at_s(1.5)) is None


def test_a_bag_that_loops_begins_anew(tree: MovingTransforms) -> None:
    moved(tree, 1.0, "odom", "footprint", pose(3.0))
    assert tree.newest_ns("odom", "footprint") == at_s(3.0), "one odd stamp says nothing"
    moved(tree, 1.1, "odom", "footprint", pose(3.0))
    assert tree.newest_ns("odom", "footprint") == at_s(1.1)
    assert tree.lookup("odom", "footprint", at_s(1.05)) is not None
    assert tree.lookup("odom", "footprint", at_s(2.0)) is None


def test_names_that_are_made_up_anew_fill_no_memory() -> None:
    static, moving = StaticTransforms(), MovingTransforms(StaticTransforms())
    for number in range(MAX_FRAMES + 10):
        static.add("map", f"frame{number}", np.eye(4))
        moving.admit(StampedTransform(at_s(1), "map", f"frame{number}", np.eye(4)))
    assert len(static.frames) == MAX_FRAMES
    assert len(moving.frames) == MAX_FRAMES + 1  # and the parent
    assert static.add("map", "frame5", pose(1.0))
    moving.admit(StampedTransform(at_s(2), "map", "frame5", pose(1.0)))
    assert moving.newest_ns("map", "frame5") == at_s(2)
