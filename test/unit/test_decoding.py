"""Messages of any bag to arrays: images of all encodings, calibrations, rotations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.pictures import GREY, HEIGHT, RGB, WIDTH, picture
from pixloc_ros.sensors import decoding
from pixloc_ros.sensors.decoding import BadMessage


def colours(encoding: str) -> np.ndarray:
    """RGB in another order of channels, or as 16 bits."""
    order = {"rgb": RGB, "bgr": RGB[..., ::-1]}[encoding[:3]]
    if "a" in encoding:
        order = np.dstack([order, np.full((HEIGHT, WIDTH), 9, np.uint8)])
    return order.astype(np.uint16) * 257 if encoding.endswith("16") else order


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16"])
def test_colour_images_come_out_as_rgb(encoding: str, padding: int) -> None:
    message = picture(colours(encoding), encoding, padding)
    np.testing.assert_array_equal(decoding.image_rgb(message), RGB)


@pytest.mark.parametrize("padding", [0, 3])
def test_grey_images_become_three_equal_channels(padding: int) -> None:
    expected = np.dstack([GREY] * 3)
    np.testing.assert_array_equal(decoding.image_rgb(picture(GREY, "mono8", padding)), expected)
    np.testing.assert_array_equal(decoding.image_rgb(picture(GREY, "8UC1", padding)), expected)
    deep = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(decoding.image_rgb(picture(deep, "mono16")), expected)
    big = picture(deep.byteswap() + 0, "mono16", is_bigendian=1)
    np.testing.assert_array_equal(decoding.image_rgb(big), expected)


@pytest.mark.parametrize(
    ("encoding", "first_pixel"), [("rggb", 0), ("bggr", 2), ("gbrg", 1), ("grbg", 1)]
)
def test_bayer_patterns_are_named_by_their_first_pixels(encoding: str, first_pixel: int) -> None:
    """A scene of one colour: the mosaic holds its red, green and blue where the name says."""
    red, green, blue = 200, 120, 40
    value = {"r": red, "g": green, "b": blue}
    tile = np.array([value[letter] for letter in encoding], np.uint8).reshape(2, 2)
    image = decoding.image_rgb(picture(np.tile(tile, (8, 8)), f"bayer_{encoding}8"))
    assert image[8, 8].tolist() == [red, green, blue]
    assert tile[0, 0] == [red, green, blue][first_pixel]


def test_yuv_with_luma_only_is_grey() -> None:
    uyvy = np.dstack(
        [np.full((HEIGHT, WIDTH), 128, np.uint8), np.full((HEIGHT, WIDTH), 126, np.uint8)]
    )
    image = decoding.image_rgb(picture(uyvy, "yuv422"))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(image) <= 2


def test_compressed_images_are_rgb_even_when_grey() -> None:
    flat = np.full((32, 32, 3), (200, 60, 30), np.uint8)
    jpeg = cv2.imencode(".jpg", flat[..., ::-1])[1].tobytes()
    image = decoding.image_rgb(SimpleNamespace(format="jpeg", data=jpeg))
    assert np.abs(image.astype(int) - flat).max() < 6
    png = cv2.imencode(".png", GREY)[1].tobytes()
    grey = decoding.image_rgb(SimpleNamespace(format="png", data=png))
    np.testing.assert_array_equal(grey, np.dstack([GREY] * 3))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "32FC1"}, "image_encoding"),
        ({"step": 3 * WIDTH - 1}, "image_step"),
        ({"step": 3 * WIDTH + 1}, "image_size"),
        ({"data": np.zeros(7, np.uint8)}, "image_size"),
        ({"width": 0}, "image_size"),
        ({"height": 10**6}, "image_size"),
    ],
)
def test_images_that_do_not_add_up_are_refused(changes: dict[str, Any], reason: str) -> None:
    message = picture(RGB, "rgb8")
    vars(message).update(changes)
    with pytest.raises(BadMessage) as refused:
        decoding.image_rgb(message)
    assert refused.value.reason == reason
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff\xe0 cut off"])
def test_useless_compressed_images_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decoding.image_rgb(SimpleNamespace(format="jpeg", data=data))


def camera_info(**changes: Any) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    fields = {
        "distortion_model": "plumb_bob",
        "width": 640,
        "height": 480,
        "k": [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0],
        "d": [0.0] * 5,
        "roi": roi,
        "binning_x": 0,
        "binning_y": 0,
    }
    return SimpleNamespace(**{**fields, **changes})


def test_camera_info_with_a_region_and_binning() -> None:
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=200)
    camera = decoding.camera(camera_info(roi=roi, binning_x=2, binning_y=2))
    assert (camera.width, camera.height) == (200, 100)
    expected = [[250.0, 0.0, 109.75], [0.0, 255.0, 99.75], [0.0, 0.0, 1.0]]
    np.testing.assert_allclose(camera.K(), expected)


@pytest.mark.parametrize("changes", [{"k": [0.0] * 9}, {"width": 0}, {"k": [float("nan")] * 9}])
def test_a_camera_that_is_not_calibrated_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadMessage) as refused:
        decoding.camera(camera_info(**changes))
    assert refused.value.reason == "camera_info_unusable"


@pytest.mark.parametrize(
    ("quat_xyzw", "reason"),
    [
        ([0.0, 0.0, 0.0, 0.0], "bad_quaternion"),
        ([0.0, 0.0, 0.0, 2.0], "bad_quaternion"),
        ([float("nan"), 0.0, 0.0, 1.0], "not_finite"),
    ],
)
def test_rotations_that_are_none_are_refused(quat_xyzw: list[float], reason: str) -> None:
    position = SimpleNamespace(x=0.0, y=0.0, z=0.0)
    orientation = SimpleNamespace(**dict(zip("xyzw", quat_xyzw, strict=True)))
    with pytest.raises(BadMessage) as refused:
        decoding.pose(SimpleNamespace(position=position, orientation=orientation))
    assert refused.value.reason == reason
