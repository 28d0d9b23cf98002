"""What any publisher may send becomes an event or a refusal with a reason, at little cost."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from helpers.limits import bounded
from helpers.priors import holder
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.datum import Datum
from pixloc_ros.priors.gnss import GnssGate
from pixloc_ros.replay import messages
from pixloc_ros.sensors import conversion, decoding
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import ImageEvent, RefusedMessage, StaticTransformsEvent

STAMP_NS = 1_700_000_000_000_000_000
CAMERA = Camera.create("PINHOLE", [640, 480], [500.0, 500.0], [319.5, 239.5])
EXTREME = [1e160, -1e308, 1e17]


def the_reason(part: str, message: Any) -> str:
    """Why a message is refused, or the image in it once it is decoded."""
    event = conversion.event_of(part, message, STAMP_NS)
    if isinstance(event, ImageEvent):
        with pytest.raises(BadMessage) as refused:
            _ = event.image_rgb
        reason, text = refused.value.reason, str(refused.value)
    else:
        assert isinstance(event, RefusedMessage)
        reason, text = event.reason, event.message
    assert text and text.isprintable() and len(text) <= 1000
    return reason


def fix(**changes: Any) -> Any:
    message = messages.nav_sat_fix(STAMP_NS, "gps", (49.0, 8.4, 110.0), np.ones(3))
    return replace(message, **changes)


def info(**changes: Any) -> Any:
    return replace(messages.camera_info(STAMP_NS, "cam", CAMERA), **changes)


def stated(x_m: float = 0.0, covariance: Any = None, frame: str = "map") -> Any:
    T = se3.make(np.eye(3), [x_m, 0.0, 0.0])
    covariance = np.eye(6) if covariance is None else covariance
    return messages.pose_with_covariance(STAMP_NS, frame, T, covariance)


# --- numbers ---


@pytest.mark.parametrize("x_m", EXTREME)
@pytest.mark.parametrize("part", ["initialpose", "gnss_pose"])
def test_a_pose_that_is_farther_than_the_earth_is_wide(part: str, x_m: float) -> None:
    assert the_reason(part, stated(x_m)) == "too_far"


def test_odometry_and_transforms_beyond_the_earth() -> None:
    T = se3.make(np.eye(3), [0.0, 1e160, 0.0])
    assert the_reason("odom", messages.odometry(STAMP_NS, "odom", "base_link", T)) == "too_far"
    event = static_event([messages.static_transform(STAMP_NS, "base_link", "cam", T)])
    assert [refused.reason for refused in event.refused] == ["too_far"]


@pytest.mark.parametrize(
    "covariance",
    [-np.eye(3), np.arange(9.0).reshape(3, 3), np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])],
)
def test_fixes_with_what_is_no_covariance(covariance: np.ndarray) -> None:
    message = fix(position_covariance=covariance.reshape(-1))
    assert the_reason("gnss_fix", message) == "bad_covariance"


@pytest.mark.parametrize(
    "changes",
    [
        {"latitude": 1e308},
        {"latitude": float("nan")},
        {"longitude": 181.0},
        {"altitude": 1e308},
        {"altitude": float("-inf")},
    ],
)
def test_fixes_from_beyond_the_earth(changes: dict[str, Any]) -> None:
    event = conversion.event_of("gnss_fix", fix(**changes), STAMP_NS)
    gate = GnssGate(holder(), Datum(latitude_deg=49, longitude_deg=8.4, altitude_m=110, yaw_deg=0))
    assert gate.accept(event) is None
    assert gate.rejected == {"gnss_not_a_position": 1}


def test_a_fix_without_height_or_covariance_is_one() -> None:
    event = conversion.event_of("gnss_fix", fix(altitude=float("nan")), STAMP_NS)
    assert np.isnan(event.altitude_m)
    unknown = fix(position_covariance=np.full(9, np.nan), position_covariance_type=0)
    event = conversion.event_of("gnss_fix", unknown, STAMP_NS)
    assert event.covariance_enu is None


def test_a_variance_that_means_unknown_stays_a_number_to_reckon_with() -> None:
    huge = fix(position_covariance=np.diag([1.0, 1e308, 1e308]).reshape(-1))
    event = conversion.event_of("gnss_fix", huge, STAMP_NS)
    assert np.linalg.eigvalsh(event.covariance_enu)[-1] > 1e9
    np.testing.assert_array_equal(event.covariance_enu[0], [1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "covariance",
    [
        np.diag([1.0, 1, 1, 1, 1, -1e-3]),
        np.eye(6) + np.eye(6, k=1) * 0.5,  # not symmetric
        np.eye(6) + (np.eye(6, k=1) + np.eye(6, k=-1)) * 2.0,  # correlations above one
        np.eye(6, k=1) + np.eye(6, k=-1),  # related to what does not vary
        np.full((6, 6), np.nan),
    ],
)
@pytest.mark.parametrize("part", ["initialpose", "gnss_pose"])
def test_what_is_no_covariance(part: str, covariance: np.ndarray) -> None:
    assert the_reason(part, stated(covariance=covariance)) == "bad_covariance"


def test_covariances_of_other_programs_are_taken() -> None:
    rviz = np.diag([0.25, 0.25, 0.0, 0.0, 0.0, 0.068])
    rounded = np.full((6, 6), 0.04) + np.eye(6) * 1e-9  # wholly correlated, as filters write it
    rounded[0, 1] *= 1 + 1e-6
    flat = np.diag([0.1, 0.1, 1e308, 1e308, 1e308, 0.01])
    for covariance in (rviz, rounded, flat):
        event = conversion.event_of("gnss_pose", stated(covariance=covariance), STAMP_NS)
        np.testing.assert_array_equal(event.covariance, event.covariance.T)
        assert np.linalg.eigvalsh(event.covariance)[0] > -1e-9
        assert np.abs(event.covariance).max() < 1e13


# --- calibrations ---


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", [-0.3, 0.1, 1e-3, 1e-3]),
        ("plumb_bob", [-0.3, 0.1, 1e-3, 1e-3, 0.0, 0.0, 0.0, 0.0]),
        ("rational_polynomial", [-0.3, 0.1, 1e-3, 1e-3, 0.01]),
        ("rational_polynomial", [-0.3, 0.1, 1e-3, 1e-3, 0.01, 0.2, 0.1, 0.0]),
        ("rational_polynomial", [-0.3, 0.1, 1e-3, 1e-3, 0.01, 0.2, 0.1, 0.0, 0, 0, 0, 0]),
        ("rational_polynomial", [-0.3, 0.1, 1e-3, 1e-3, 0.01, 0.2, 0.1, 0.0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_layouts_of_opencv_mean_what_they_mean_to_opencv(
    model: str, coefficients: list[float]
) -> None:
    camera = decoding.camera(info(distortion_model=model, d=np.array(coefficients)))
    points = np.random.default_rng(0).uniform([-1, -1, 2], [1, 1, 5], (50, 3))
    pixels, _, _ = camera.project_with_jacobian(torch.from_numpy(points))
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), CAMERA.K(), np.array(coefficients)
    )
    np.testing.assert_allclose(pixels.numpy(), expected[:, 0], atol=1e-9)


@pytest.mark.parametrize("zeros", [0, 1, 4])
def test_a_fisheye_lens_with_zeros_behind_its_coefficients(zeros: int) -> None:
    d = np.array([0.02, -0.01, 0.003, -0.001] + [0.0] * zeros)
    camera = decoding.camera(info(distortion_model="equidistant", d=d))
    assert camera.model == "OPENCV_FISHEYE"
    np.testing.assert_array_equal(camera.distortion.numpy(), d[:4])


@pytest.mark.parametrize(
    "changes",
    [
        {"d": np.array([1e308, 0.0, 0.0, 0.0, 0.0])},
        {"distortion_model": "equidistant", "d": np.full(4, -1e308)},
        {"distortion_model": "rational_polynomial", "d": np.full(8, 1e160)},
        {"distortion_model": "rational_polynomial", "d": np.full(12, 0.1)},  # a thin prism
        {"distortion_model": "rational_polynomial", "d": np.full(14, 0.1)},  # a tilted sensor
        {"d": np.full(10_000, 0.1)},
        {"distortion_model": "\x1b[2J" * 100_000, "d": np.ones(5)},
        {"k": CAMERA.K().reshape(-1) * 1e300},
        {"k": CAMERA.K().reshape(-1) * 1e-300},
        {"width": 2**32 - 1, "height": 2**32 - 1},
        {"binning_x": 2**32 - 1},
    ],
)
def test_calibrations_that_no_camera_has(changes: dict[str, Any]) -> None:
    assert the_reason("camera_info", info(**changes)) == "camera_info_unusable"


@pytest.mark.parametrize("region", [(600, 0, 100, 100), (0, 0, 2**32 - 1, 1)])
def test_a_region_that_is_not_on_the_sensor(region: tuple[int, ...]) -> None:
    x, y, width, height = region
    roi = replace(info().roi, x_offset=x, y_offset=y, width=width, height=height)
    assert the_reason("camera_info", info(roi=roi)) == "camera_info_unusable"


# --- names ---


@pytest.mark.parametrize("part", ["image", "camera_info", "odom", "gnss_fix", "initialpose"])
def test_a_frame_id_of_a_megabyte_is_not_carried_on(part: str) -> None:
    long = "x" * 1_000_000
    T = np.eye(4)
    message = {
        "image": messages.image(STAMP_NS, long, np.zeros((4, 4, 3), np.uint8)),
        "camera_info": messages.camera_info(STAMP_NS, long, CAMERA),
        "odom": messages.odometry(STAMP_NS, "odom", long, T),
        "gnss_fix": messages.nav_sat_fix(STAMP_NS, long, (49.0, 8.4, 110.0), np.ones(3)),
        "initialpose": stated(frame=long),
    }[part]
    assert the_reason(part, message) == "frame_id"


def test_control_characters_of_a_message_do_not_reach_the_terminal() -> None:
    picture = messages.image(STAMP_NS, "cam", np.zeros((4, 4, 3), np.uint8))
    assert the_reason("image", replace(picture, encoding="\x1b[2J\nrgb")) == "image_encoding"
    assert the_reason("initialpose", stated(frame="map\x1b[2J")) == "frame_id"


# --- transforms ---


def static_event(stamped: list[Any]) -> StaticTransformsEvent:
    message = replace(stamped[0], transforms=[m.transforms[0] for m in stamped])
    event = conversion.event_of("tf_static", message, STAMP_NS)
    assert isinstance(event, StaticTransformsEvent)
    return event


def test_the_good_transforms_of_a_message_are_taken() -> None:
    good = messages.static_transform(STAMP_NS, "base_link", "cam", np.eye(4))
    unfilled = messages.static_transform(STAMP_NS, "base_link", "lidar", np.eye(4))
    unfilled.transforms[0].transform.rotation.w = 0.0
    nameless = messages.static_transform(STAMP_NS, "base_link", "", np.eye(4))
    same = messages.static_transform(STAMP_NS, "gps", "/gps", np.eye(4))
    event = static_event([unfilled, good, nameless, same])
    assert [transform.child for transform in event.transforms] == ["cam"]
    refused = {each.reason: each.message for each in event.refused}
    assert set(refused) == {"bad_quaternion", "frame_id"}
    assert "base_link" in refused["bad_quaternion"] and "lidar" in refused["bad_quaternion"]


# --- pictures ---


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side_px: int) -> bytes:
    """A PNG of zeros, small as a file and large as an image."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(64_000), 9)
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def jpeg_bomb(side_px: int) -> bytes:
    """A JPEG of 8 pixels that says to have more."""
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side_px, side_px)
    return bytes(jpeg)


@pytest.mark.parametrize("content", [jpeg_bomb(32760), png_bomb(20_000), png_bomb(2**31 - 1)])
def test_a_small_file_that_claims_a_large_image_costs_nothing(content: bytes) -> None:
    message = messages.compressed_image(STAMP_NS, "cam", content)
    with bounded(max_cpu_s=1.0, max_memory_kb=100_000):
        assert the_reason("image", message) == "image_size"


def test_an_image_of_another_size_than_the_calibration_is_not_even_decoded() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    right = messages.compressed_image(STAMP_NS, "cam", encoded(picture, ".jpg"))
    assert decoding.image_rgb(right, size=(64, 48)).shape == picture.shape
    with pytest.raises(BadMessage, match=r"64x48.*640x480") as refused:
        decoding.image_rgb(right, size=(640, 480))
    assert refused.value.reason == "image_size"
    cut = replace(right, data=np.concatenate([right.data[:-60], right.data[-2:]]))
    with pytest.raises(BadMessage, match=r"64x48.*640x480"):
        decoding.image_rgb(cut, size=(640, 480))
    raw = messages.image(STAMP_NS, "cam", picture)
    with pytest.raises(BadMessage, match=r"64x48.*640x480"):
        decoding.image_rgb(raw, size=(640, 480))


def encoded(picture: np.ndarray, suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, picture)[1].tobytes())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm"])
def test_sizes_are_read_from_headers(suffix: str) -> None:
    from pixloc_ros.common import image_files

    content = encoded(np.zeros((37, 61, 3), np.uint8), suffix)
    assert image_files.size_of(content) == (61, 37)
    image_rgb = image_files.decode(content)
    assert image_rgb is not None and image_rgb.shape == (37, 61, 3)
    for end in range(0, len(content), max(1, len(content) // 300)):
        image_files.decode(content[:end])  # whatever it says, it says it without an exception


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    progressive = cv2.imencode(
        ".jpg", np.zeros((1500, 2000, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    )[1].tobytes()
    usual = messages.compressed_image(STAMP_NS, "cam", progressive)
    assert decoding.image_rgb(usual).shape == (1500, 2000, 3)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    endless = progressive[:-2] + scan * 2_000 + b"\xff\xd9"
    message = messages.compressed_image(STAMP_NS, "cam", endless)
    assert the_reason("image", message) == "image_undecodable"
