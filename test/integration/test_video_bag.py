"""A bag of a video file: its images, its calibration and the track recorded beside it."""

import re
from fractions import Fraction

import numpy as np
import pytest
from typer.testing import CliRunner

from pixloc_ros.cli import main
from pixloc_ros.errors import DataError, PixlocError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.replay.bag_reader import BagReader
from pixloc_ros.replay.recorded_drive import read_drives
from pixloc_ros.replay.video_drive import pinhole

av = pytest.importorskip("av", reason="video needs PyAV: pip install 'pixloc_ros[video]'")
COUNT, WIDTH, HEIGHT = 12, 128, 96
CALIBRATION = """
image_width: 128
image_height: 96
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [100.0, 0.0, 64.0, 0.0, 101.0, 48.0, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.2, 0.03, 0.001, 0.0, 0.0]}
"""
TRACK = """time_s,latitude_deg,longitude_deg,altitude_m,sigma_m
0.5,48.001,11.0,500.0,1.5
0.0,48.0,11.0,500.0,1.5
"""


def gray(index: int) -> int:
    return 20 + 15 * index


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    with av.open(str(path), "w") as film:
        film.metadata["creation_time"] = "2024-05-06T07:08:09.000000Z"
        stream = film.add_stream("libx264", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(COUNT):
            image = np.full((HEIGHT, WIDTH, 3), gray(index), np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        film.mux(stream.encode(None))
    return path


def run(*arguments: object):
    return CliRunner().invoke(main.build(), ["bag", "from-video", *map(str, arguments)])


def test_images_calibration_and_fixes_of_a_video_are_in_the_bag(video, tmp_path):
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    (tmp_path / "track.csv").write_text(TRACK)
    files = ("--calibration", tmp_path / "camera.yaml", "--track", tmp_path / "track.csv")
    result = run(video, *files, "--output", tmp_path / "bag", "--every", 2)
    assert result.exit_code == 0, result.output

    with BagReader(tmp_path / "bag") as reader:
        images = list(reader.events(parts=("image",)))
        stamps_ns = [event.stamp_ns for event in images]
        levels = [float(event.image_rgb.mean()) for event in images]
        camera = next(iter(reader.events(parts=("camera_info",)))).camera
        fixes = list(reader.events(parts=("gnss_fix",)))
    began_ns = 1_714_979_289 * 10**9  # 2024-05-06 07:08:09 UTC
    np.testing.assert_allclose(np.subtract(stamps_ns, began_ns) / 1e9, np.arange(0, 1.2, 0.2))
    np.testing.assert_allclose(levels, [gray(i) for i in range(0, COUNT, 2)], atol=4)
    assert [fix.stamp_ns - began_ns for fix in fixes] == [0, 500_000_000]
    assert fixes[1].latitude_deg == 48.001
    np.testing.assert_allclose(camera.K(), [[100, 0, 64], [0, 101, 48], [0, 0, 1]])
    assert camera.distortion.tolist()[:2] == pytest.approx([-0.2, 0.03])


def test_a_drive_for_a_map_is_read_from_it(video, tmp_path):
    result = run(video, "--hfov", 90, "--output", tmp_path / "bag")
    assert result.exit_code == 0, result.output
    (drive,) = read_drives([tmp_path / "bag"])
    (taken_by,) = drive.cameras
    assert taken_by.camera.focal.tolist() == pytest.approx([WIDTH / 2, WIDTH / 2])
    np.testing.assert_allclose(taken_by.T_base_cam, se3.base_from_optical(), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("track.csv", "time_s,latitude_deg\n", "has no fixes: expected lines"),
        ("track.csv", "time_s,latitude_deg\n1,2\n", "line 2: longitude_deg"),
        ("track.csv", TRACK.replace("500.0", "high"), "line 2: altitude_m"),
        ("track.csv", TRACK.replace("500.0", "inf"), "line 2: altitude_m"),
        ("track.csv", TRACK.replace("48.0", "948.0"), "line 2: latitude_deg"),
        ("camera.yaml", "image_width: 128", "image_height"),
        ("camera.yaml", CALIBRATION.replace("plumb_bob", "kannala"), "kannala"),
        ("camera.yaml", CALIBRATION.replace(", 0.0, 0.0, 1.0]", "]"), "6 numbers instead of 9"),
        ("camera.yaml", CALIBRATION.replace("128", "640"), "is 128x96.*is for 640x96"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(
    video, tmp_path, name, content, message
):
    file = tmp_path / name
    file.write_text(content)
    option = "--track" if name == "track.csv" else "--calibration"
    result = run(video, option, file, "--output", tmp_path / "bag")
    assert result.exit_code == 1
    assert isinstance(result.exception, PixlocError)
    assert re.search(message, str(result.exception))
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "bag").exists()


def test_what_is_no_video_is_named_and_leaves_nothing(video, tmp_path):
    foreign = tmp_path / "walk.mp4"
    foreign.write_bytes(b"not a video" * 100)
    cut_off = tmp_path / "cut_off.mp4"
    cut_off.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    for path in (foreign, cut_off, tmp_path / "nowhere.mp4"):
        result = run(path, "--output", tmp_path / "bag")
        assert result.exit_code == 1
        assert isinstance(result.exception, DataError)
        assert path.name in str(result.exception)
        assert not (tmp_path / "bag").exists()


def test_an_angle_of_view_is_a_focal_length():
    camera: Camera = pinhole((848, 480), 90.0)
    assert camera.focal.tolist() == pytest.approx([424.0, 424.0])
    assert camera.center.tolist() == [423.5, 239.5]
