"""COLMAP models: equal to pycolmap for every format, and one clear line for what is broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pixloc_ros.errors import CameraError, MapError
from pixloc_ros.maps.files.colmap import ColmapModel, read_model

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap writes the models to compare with")

CAMERAS = {
    1: ("PINHOLE", [90.0, 91.0, 50.0, 40.0]),
    2: ("OPENCV", [80.0, 81.0, 49.0, 41.0, -0.1, 0.02, 1e-3, -1e-3]),
    7: ("SIMPLE_RADIAL", [85.0, 50.5, 39.5, -0.05]),
}
NAMES = {1: "front/a b.jpg", 2: "left/ünder.jpg", 7: "c.jpg"}


def rigid(quat_xyzw: list[float], translation: list[float]):
    quat = np.array(quat_xyzw) / np.linalg.norm(quat_xyzw)
    return pycolmap.Rigid3d(pycolmap.Rotation3d(quat), np.array(translation))


def rig_model():
    """Three frames of a rig of two cameras, the last without a pose, and one of a single camera."""
    model = pycolmap.Reconstruction()
    for camera_id, (name, params) in CAMERAS.items():
        camera = pycolmap.Camera(model=name, width=100, height=80, params=params)
        camera.camera_id = camera_id
        model.add_camera(camera)
    pair, single = pycolmap.Rig(rig_id=1), pycolmap.Rig(rig_id=2)
    pair.add_ref_sensor(sensor(1))
    pair.add_sensor(sensor(2), rigid([0.0, 0.1, 0.0, 1.0], [-0.5, 0.0, 0.02]))
    single.add_ref_sensor(sensor(7))
    model.add_rig(pair)
    model.add_rig(single)
    for frame_id, cameras in ((1, (1, 2)), (2, (1, 2)), (3, (1, 2)), (4, (7,))):
        add_frame(model, frame_id, cameras)
    add_points(model)
    return model


def sensor(camera_id: int):
    return pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id)


def add_frame(model, frame_id: int, cameras: tuple[int, ...]) -> None:
    frame = pycolmap.Frame(frame_id=frame_id, rig_id=1 if len(cameras) > 1 else 2)
    for camera_id in cameras:
        frame.add_data_id(pycolmap.data_t(sensor(camera_id), 10 * frame_id + camera_id))
    if frame_id != 3:
        frame.rig_from_world = rigid([0.02, -0.01, 0.03, 1.0], [0.1 * frame_id, 0.2, 0.3])
    model.add_frame(frame)
    for camera_id in cameras:
        keypoints = np.random.default_rng(frame_id).uniform(0, 80, (5, 2))
        image = pycolmap.Image(
            name=f"{frame_id}/{NAMES[camera_id]}",
            camera_id=camera_id,
            image_id=10 * frame_id + camera_id,
            points2D=pycolmap.Point2DList([pycolmap.Point2D(xy) for xy in keypoints]),
        )
        image.frame_id = frame_id
        model.add_image(image)
    if frame_id != 3:
        model.register_frame(frame_id)


def add_points(model) -> None:
    for index in range(3):
        track = pycolmap.Track()
        for image_id in (11, 12, 21, 47)[: index + 2]:
            track.add_element(image_id, index)
        point_id = model.add_point3D(np.array([index, 2.0, 9.0]), track)
        model.point3D(point_id).error = 0.5 + index


def assert_equal(ours: ColmapModel, theirs) -> None:
    registered = {i: image for i, image in theirs.images.items() if image.has_pose}
    assert {image.image_id for image in ours.images} == set(registered)
    for image in ours.images:
        other = registered[image.image_id]
        assert (image.name, image.camera_id) == (other.name, other.camera_id)
        T_cam_world = other.cam_from_world().matrix()
        np.testing.assert_allclose(image.T_cam_world[:3], T_cam_world, atol=1e-12)
        keypoints = [p.xy for p in other.points2D]
        np.testing.assert_allclose(image.pixels + 0.5, keypoints, atol=1e-12)
        ids = [p.point3D_id if p.has_point3D() else -1 for p in other.points2D]
        assert image.point_ids.tolist() == ids
    points = [theirs.points3D[i] for i in ours.point_ids.tolist()]
    assert len(points) == len(theirs.points3D)
    np.testing.assert_allclose(ours.points_world, [p.xyz for p in points])
    np.testing.assert_allclose(ours.errors_px, [p.error for p in points])
    for camera_id, camera in ours.cameras.items():
        focal = theirs.cameras[camera_id].calibration_matrix()[[0, 1], [0, 1]]
        np.testing.assert_allclose(camera.focal, focal)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "sparse"
    folder.mkdir()
    rig_model().write_binary(folder)
    return folder


def test_binary_model_with_rigs_equals_pycolmap(model_dir):
    assert_equal(read_model(model_dir), pycolmap.Reconstruction(model_dir))


def test_text_model_with_rigs_equals_pycolmap(tmp_path):
    model = rig_model()
    model.write_text(tmp_path)
    ours = read_model(tmp_path)
    assert_equal(ours, model)  # what was written: pycolmap cuts names in text files at a space
    assert ours.images[0].name == "1/front/a b.jpg"


def test_model_older_than_rigs_has_the_poses_of_its_images(model_dir):
    expected = pycolmap.Reconstruction(model_dir)
    (model_dir / "rigs.bin").unlink()
    (model_dir / "frames.bin").unlink()
    assert_equal(read_model(model_dir), expected)


def test_pose_of_an_image_comes_from_its_frame_where_both_are_given(tmp_path):
    rig_model().write_text(tmp_path)
    images = (tmp_path / "images.txt").read_text().splitlines()
    moved = [
        " ".join([line.split()[0], "1 0 0 0 9 9 9", *line.split()[8:]]) if ".jpg" in line else line
        for line in images
    ]
    (tmp_path / "images.txt").write_text("\n".join(moved) + "\n")
    image = next(i for i in read_model(tmp_path).images if i.image_id == 11)
    np.testing.assert_allclose(image.T_cam_world[:3, 3], [0.1, 0.2, 0.3], atol=1e-12)


def test_images_without_a_pose_are_listed_and_left_out(tmp_path):
    rig_model().write_text(tmp_path)
    with (tmp_path / "images.txt").open("a") as file:
        file.write("99 0 0 0 0 0 0 0 1 lost one.jpg\n\n")
    with_frames = read_model(tmp_path)
    for name in ("rigs.txt", "frames.txt"):
        (tmp_path / name).unlink()
    for model in (with_frames, read_model(tmp_path)):
        assert model.unregistered == ("lost one.jpg",)
        assert len(model.images) == 5


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
@pytest.mark.parametrize("left", [0, 5, -1])
def test_truncated_binary_file_is_named(model_dir, name, left):
    path = model_dir / f"{name}.bin"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(MapError, match=rf"{name}\.bin is truncated") as caught:
        read_model(model_dir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_truncated_text_file_is_named(tmp_path, name):
    rig_model().write_text(tmp_path)
    path = tmp_path / f"{name}.txt"
    text = path.read_text().rstrip()
    path.write_text(text[: text.rindex("\n") + 12 if name != "rigs" else -4])
    with pytest.raises(MapError, match=rf"{name}\.txt is truncated"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_missing_file_is_named(model_dir, name):
    (model_dir / f"{name}.bin").unlink()
    with pytest.raises(MapError, match=rf"lacks {name}\.bin"):
        read_model(model_dir)


def test_folder_above_the_model_says_where_the_model_is(model_dir):
    with pytest.raises(MapError, match="subfolder sparse"):
        read_model(model_dir.parent)


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(MapError, match="no such folder"):
        read_model(tmp_path / "nowhere")


@pytest.mark.parametrize("write", ["write_binary", "write_text"])
def test_empty_models_are_refused(tmp_path, write):
    getattr(pycolmap.Reconstruction(), write)(tmp_path)
    with pytest.raises(MapError, match="no registered image"):
        read_model(tmp_path)


def test_model_without_points_is_refused(tmp_path):
    model = rig_model()
    for point_id in list(model.points3D):
        model.delete_point3D(point_id)
    model.write_binary(tmp_path)
    with pytest.raises(MapError, match="no 3D point"):
        read_model(tmp_path)


def test_files_of_two_models_are_refused(model_dir, tmp_path):
    other = rig_model()
    other.delete_point3D(min(other.points3D))
    (tmp_path / "other").mkdir()
    other.write_binary(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "points3D.bin", model_dir)
    with pytest.raises(MapError, match="files of one model"):
        read_model(model_dir)


def test_camera_model_that_is_not_supported_is_named(tmp_path):
    rig_model().write_text(tmp_path)
    path = tmp_path / "cameras.txt"
    path.write_text(path.read_text().replace("SIMPLE_RADIAL 100 80 85", "FOV 100 80 85 85"))
    with pytest.raises(CameraError, match="FOV"):
        read_model(tmp_path)


@pytest.mark.slow
def test_real_model_equals_pycolmap(kitti03_a):
    folder = kitti03_a / "colmap"
    assert_equal(read_model(folder), pycolmap.Reconstruction(folder))
