"""Plausible mistakes of Python users are named in one line, by an error of this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixloc_ros import (
    BuildOptions,
    Camera,
    ColmapSource,
    Config,
    Datum,
    DriveSource,
    LidarSource,
    Localizer,
    Map,
    PosedImagesSource,
    Positions,
    Session,
    build_map,
    read_drives,
)
from pixloc_ros.config import AlignmentConfig, from_flat
from pixloc_ros.errors import PixlocError

SOURCE = ColmapSource(model_dir="model", images="images")
PLACE = {"latitude_deg": 49.0, "longitude_deg": 8.0, "altitude_m": 0.0, "yaw_deg": 0.0}


def call(function: Any, *arguments: Any, **named: Any) -> Callable[[], Any]:
    """A call with arguments that a type checker need not accept."""
    return lambda: function(*arguments, **named)


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        (call(Config, mapp="x"), r"unknown parameter 'mapp': did you mean 'map'\?"),
        (
            call(Config, alignment={"robust_scal": 0.1}),
            r"'alignment\.robust_scal': did you mean 'alignment\.robust_scale'",
        ),
        (
            call(Config, **{"alignment.robust_scale": 0.1}),
            r"is in a section: pixloc_ros\.config\.from_flat",
        ),
        (call(Config, device="gpu"), r"'device' = 'gpu' does not fit\. Device .*: cpu, cuda"),
        (call(AlignmentConfig, robust_scale=-1), r"'robust_scale' = -1: .*greater than"),
        (
            call(from_flat, {"node.camera_mounting": 3}),
            r"'node\.camera_mounting' = 3: expected 7 numbers\. Pose .*x, y, z in metres and quat",
        ),
        (
            call(from_flat, {"node.camera_mounting": [1.0, 2.0, 3.0]}),
            r"'node\.camera_mounting' = .*: expected 7 numbers\. Pose",
        ),
        (
            call(from_flat, {"node.camera_mounting": [1.0] * 7}),
            "node: camera_mounting ends with a quaternion",
        ),
        (call(Localizer, "map"), r"made of a Config\(map=\.\.\.\), not of a str"),
        (call(Session, Config(map="x")), "localizer is .*, expected a Localizer"),
        (call(Camera.create, "PINHOLE", ["w", "h"], [1, 1], [1, 1]), "expected numbers, got"),
        (call(Camera.create, "PINHOLE", 640, [400, 400], [1, 1]), "two numbers each"),
        (call(Camera.from_ros, "plumb_bob", 640, 384, [400, 400, 318, 193], []), "4 .* of 9"),
        (call(Camera.from_colmap, "PINHOLE", 640, 384, "400,400,3,3"), "expected numbers"),
        (call(Map.load, None), "from its folder or URL, not from a NoneType"),
        (call(build_map, "folder", "out"), r"source is 'folder', expected .*ColmapSource\("),
        (call(build_map, ColmapSource, "out"), "source is ColmapSource, expected a source"),
        (call(build_map, SOURCE, None), "output is None, expected a path"),
        (call(build_map, SOURCE, "out", {"tile_m": 3}), "options is .*, expected BuildOptions"),
        (call(BuildOptions, row_type="int4"), "row_type is 'int4', expected float16 or int8"),
        (call(BuildOptions, keyframe_step=0), "keyframe_step is 0, expected a whole number"),
        (call(BuildOptions, T_base_cam=np.eye(3)), "T_base_cam is .*, expected a pose"),
        (call(BuildOptions, datum="49,8,0,0"), r"datum is '49,8,0,0', expected .*Datum\.parse"),
        (call(BuildOptions, workers=4), r"workers is 4, expected Workers\(count\)"),
        (call(ColmapSource, model_dir=None, images="i"), "model_dir is None, expected a path"),
        (call(ColmapSource, model_dir="m", images="i", positions="f"), "expected Positions"),
        (call(Positions, "fixes.txt", -1.0), "tolerance_m is -1.0, expected a number above 0"),
        (call(PosedImagesSource, poses="p", images=3), "PosedImagesSource: images is 3"),
        (call(LidarSource, poses="p", images="i", cloud=None), "LidarSource: cloud is None"),
        (call(LidarSource, poses="p", images="i", cloud="c", voxel_m=0), "voxel_m is 0"),
        (call(DriveSource, drives="drive"), r"drives is 'drive', expected .*read_drives\("),
        (call(DriveSource, drives=()), "drives is"),
        (call(Datum, **PLACE | {"latitude_deg": 100.0}), "Datum: latitude_deg: .*less than"),
        (call(Datum, lat=49.0, lon=8.0), "Datum: latitude_deg: Field required"),
        (call(Datum.parse, (49.0, 8.0)), "expected LAT,LON,ALT,YAW"),
        (call(read_drives, "nowhere"), "bag nowhere does not exist"),
        (call(read_drives, None), "bags is None, expected the path of a bag"),
        (call(read_drives, ["nowhere"], "node.yaml"), "config is 'node.yaml', expected a Config"),
    ],
)
def test_a_mistake_is_named(mistake: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(PixlocError, match=complaint):
        mistake()


def test_what_is_meant_the_same_is_accepted() -> None:
    K = [[400.0, 0.0, 320.0], [0.0, 400.0, 192.0], [0.0, 0.0, 1.0]]
    square = Camera.from_ros("plumb_bob", 640, 384, K, [])  # type: ignore[arg-type]
    flat = Camera.from_ros("plumb_bob", 640, 384, [*K[0], *K[1], *K[2]], [])
    assert np.array_equal(square.K(), flat.K())
    assert Config(map=Path("maps") / "campus").map == "maps/campus"  # type: ignore[arg-type]
