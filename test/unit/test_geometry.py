"""Poses, cameras and covariances: against the reference, OpenCV, automatic differentiation."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixloc_ros.errors import CameraError
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose, jacobian_of_transform, so3_exp
from pixloc_ros.geometry.rays import rays

MODELS = {
    "SIMPLE_PINHOLE": [320.0, 321.5, 239.0],
    "PINHOLE": [300.0, 310.0, 320.0, 240.0],
    "SIMPLE_RADIAL": [400.0, 322.0, 238.0, -0.11],
    "RADIAL": [350.0, 319.0, 241.0, 0.1, -0.02],
    "OPENCV": [350.0, 351.0, 320.0, 240.0, -0.3, 0.1, 1e-3, -2e-3],
    "FULL_OPENCV": [350.0, 351.0, 320.0, 240.0, 0.2, 0.1, 1e-3, -2e-3, 0.01, 0.3, 0.05, 0.01],
    "OPENCV_FISHEYE": [250.0, 251.0, 320.0, 240.0, 0.02, -0.01, 0.003, -0.001],
}
finite = st.floats(-3, 3)
twists = st.lists(finite, min_size=6, max_size=6)


def pose_of(twist: list[float]) -> Pose:
    return Pose.exp(torch.tensor(twist, dtype=torch.float64))


def random_points(n: int = 200) -> torch.Tensor:
    rng = np.random.default_rng(0)
    points = rng.uniform([-2, -1.5, 2], [2, 1.5, 8], (n, 3))
    return torch.from_numpy(points)


# --- poses ---


def test_poses_agree_with_the_reference(parity: Path) -> None:
    data = {k: torch.from_numpy(v) for k, v in np.load(parity / "geometry_pose.npz").items()}
    pose = Pose(so3_exp(data["aa"]), data["t"])
    other = Pose(data["T2"][:, :9].unflatten(-1, (3, 3)), data["T2"][:, 9:])

    def flat(p: Pose) -> torch.Tensor:
        return torch.cat([p.R.flatten(-2), p.t], -1)

    torch.testing.assert_close(pose.R, data["R"], atol=1e-12, rtol=0)
    torch.testing.assert_close(flat(pose.inverse()), data["inv"], atol=1e-12, rtol=0)
    torch.testing.assert_close(flat(pose @ other), data["T_compose_T2"], atol=1e-12, rtol=0)
    moved = pose.transform(data["p3d"])
    torch.testing.assert_close(moved, data["T_p3d"], atol=1e-12, rtol=0)
    J = jacobian_of_transform(moved)
    torch.testing.assert_close(J, data["J_transform"], atol=1e-12, rtol=0)
    for T, turn_deg, distance_m in zip(
        pose.matrix().numpy(), data["mag_dR_deg"], data["mag_dt"], strict=True
    ):
        assert se3.angle_deg(np.eye(4), T) == pytest.approx(float(turn_deg), abs=1e-5)  # acos
        assert se3.distance_m(np.eye(4), T) == pytest.approx(float(distance_m), abs=1e-12)
    turns_deg = np.rad2deg(se3.angles_rad(np.eye(4), pose.matrix().numpy()))
    # In float64, where the arccos of a trace is off by up to 1e-7 rad, 6e-6 deg, near zero.
    np.testing.assert_allclose(turns_deg, data["mag_dR_deg"], atol=1e-5)


@given(twists, twists, twists)
@settings(max_examples=30, deadline=None)
def test_poses_form_a_group(a: list[float], b: list[float], c: list[float]) -> None:
    A, B, C = pose_of(a), pose_of(b), pose_of(c)
    left, right = (A @ B) @ C, A @ (B @ C)
    torch.testing.assert_close(left.matrix(), right.matrix(), atol=1e-9, rtol=0)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close((A @ A.inverse()).matrix(), eye, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        torch.from_numpy(se3.inverse(A.matrix().numpy())), A.inverse().matrix()
    )


@given(st.lists(st.floats(-1e-5, 1e-5), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_small_rotations_stay_rotations(w: list[float]) -> None:
    R = so3_exp(torch.tensor(w, dtype=torch.float64))
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64), atol=1e-13, rtol=0)


@given(twists)
@settings(max_examples=30, deadline=None)
def test_quaternions_of_ros_and_colmap_give_the_pose_back(twist: list[float]) -> None:
    T = pose_of(twist).matrix().numpy()
    np.testing.assert_allclose(se3.from_quat_xyzw(se3.quat_xyzw(T), T[:3, 3]), T, atol=1e-9)
    np.testing.assert_allclose(se3.from_qvec_wxyz(se3.qvec_wxyz(T), T[:3, 3]), T, atol=1e-9)


def test_interpolated_pose_moves_evenly() -> None:
    T_0 = se3.make(np.eye(3), [0, 0, 0])
    T_1 = se3.make(so3_exp(torch.tensor([0, 0, 0.4], dtype=torch.float64)), [4, 0, 0])
    for fraction in (0.0, 0.25, 1.0, 1.5):
        T = se3.interpolate(T_0, T_1, fraction)
        assert T[0, 3] == pytest.approx(4 * fraction)
        assert se3.angle_deg(T_0, T) == pytest.approx(np.rad2deg(0.4 * fraction), abs=1e-6)


# --- cameras ---


@pytest.mark.parametrize("model", ["SIMPLE_PINHOLE", "PINHOLE", "RADIAL", "OPENCV"])
def test_cameras_agree_with_the_reference(parity: Path, model: str) -> None:
    data = np.load(parity / "geometry_camera.npz")
    width, height = data[f"{model}_wh"].tolist()
    camera = Camera.from_colmap(model, width, height, data[f"{model}_colmap_params"].tolist())
    pixels, valid, J = camera.project_with_jacobian(torch.from_numpy(data["p3d_cam"]))
    seen = data[f"{model}_valid"]
    np.testing.assert_array_equal(valid.numpy(), seen)
    np.testing.assert_allclose(pixels.numpy()[seen], data[f"{model}_p2d"][seen], atol=1e-9)
    np.testing.assert_allclose(J.numpy()[seen], data[f"{model}_J"][seen], atol=1e-9)
    scaled = camera.scale((0.4, 0.3))
    numbers = [scaled.size, scaled.focal, scaled.center, scaled.distortion]
    expected = data[f"{model}_scaled_0.4_0.3"]
    np.testing.assert_allclose(torch.cat(numbers).numpy()[: len(expected)], expected, atol=1e-9)
    cropped = camera.crop((10, 20), (300, 200))
    numbers = [cropped.size, cropped.focal, cropped.center, cropped.distortion]
    expected = data[f"{model}_crop_10_20_300_200"]
    np.testing.assert_allclose(torch.cat(numbers).numpy()[: len(expected)], expected, atol=1e-9)


def test_points_beyond_the_fold_of_the_distortion_are_not_seen() -> None:
    """r (1 - 0.11 r^2) folds back at r^2 = 3.03: what lies beyond would land inside the image."""
    camera = Camera.from_colmap("SIMPLE_RADIAL", 2000, 2000, [400.0, 1000, 1000, -0.11])
    inside, beyond = torch.tensor([[1.7, 0, 1.0], [1.8, 0, 1.0]], dtype=torch.float64)
    assert camera.project(inside[None])[1].item()
    assert not camera.project(beyond[None])[1].item()


@pytest.mark.parametrize("model", MODELS)
def test_jacobian_is_the_derivative_of_the_projection(model: str) -> None:
    camera = Camera.from_colmap(model, 640, 480, MODELS[model])
    points = random_points(40)
    _, valid, J = camera.project_with_jacobian(points)
    numeric = torch.autograd.functional.jacobian(lambda p: camera.project(p)[0].sum(0), points)
    torch.testing.assert_close(J, numeric.permute(1, 0, 2), atol=1e-8, rtol=1e-8)
    assert valid.sum() > 20


@pytest.mark.parametrize("model", MODELS)
def test_rays_of_pixels_go_back_to_the_points(model: str) -> None:
    camera = Camera.from_colmap(model, 640, 480, MODELS[model])
    points = random_points()
    pixels, seen = camera.project(points)
    at_one = (points / points[:, 2:])[seen].numpy()
    assert np.abs(at_one[:, :2]).max() > 0.6
    np.testing.assert_allclose(rays(pixels[seen].numpy(), camera), at_one, atol=1e-6)
    assert rays(np.zeros((0, 2)), camera).shape == (0, 3)


@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE"])
def test_projection_agrees_with_opencv(model: str) -> None:
    params = MODELS[model]
    camera = Camera.from_colmap(model, 640, 480, params)
    points = random_points().numpy()
    distortion = np.array(params[4:]) if len(params) > 4 else np.zeros(4)
    zero = np.zeros(3)
    if model == "OPENCV_FISHEYE":
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, camera.K(), distortion)
    else:
        expected, _ = cv2.projectPoints(points, zero, zero, camera.K(), distortion)
    pixels, _ = camera.project(torch.from_numpy(points))
    np.testing.assert_allclose(pixels.numpy(), expected[:, 0], atol=1e-6)


def test_plumb_bob_of_ros_keeps_its_third_radial_coefficient() -> None:
    K = [350.0, 0, 319.5, 0, 351.0, 239.5, 0, 0, 1]
    D = [-0.3, 0.1, 1e-3, -2e-3, 0.02]
    camera = Camera.from_ros("plumb_bob", 640, 480, K, D)
    points = random_points().numpy()
    zero = np.zeros(3)
    expected, _ = cv2.projectPoints(points, zero, zero, np.reshape(K, (3, 3)), np.array(D))
    np.testing.assert_allclose(
        camera.project(torch.from_numpy(points))[0].numpy(), expected[:, 0], atol=1e-6
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scaling_keeps_pixel_centres(model: str, factor: float) -> None:
    """Pixel p of the image is (p + 0.5) s - 0.5 of the resized one, whatever the model."""
    camera = Camera.from_colmap(model, 640, 480, MODELS[model])
    pixels, _ = camera.project(random_points())
    scaled, _ = camera.scale(factor).project(random_points())
    torch.testing.assert_close(scaled, (pixels + 0.5) * factor - 0.5, atol=1e-9, rtol=0)


def test_a_batch_of_cameras_projects_like_each_of_them() -> None:
    one = Camera.from_colmap("OPENCV", 640, 480, MODELS["OPENCV"])
    two = one.scale(0.5)
    points = random_points()
    batched, valid = Camera.stack([one, two]).project(points.expand(2, -1, -1))
    for i, camera in enumerate((one, two)):
        torch.testing.assert_close(batched[i], camera.project(points)[0])
        assert torch.equal(valid[i], camera.project(points)[1])


def test_a_camera_named_as_in_ros_is_told_what_to_use() -> None:
    with pytest.raises(CameraError, match=r"Camera\.from_ros, or FULL_OPENCV"):
        Camera.create("plumb_bob", [640, 384], [400.0, 400.0], [320.0, 192.0])


@pytest.mark.parametrize(("focal", "center"), [(400.0, [320.0, 192.0]), ([400.0], [320.0, 192.0])])
def test_a_camera_needs_two_focal_lengths(focal, center) -> None:
    with pytest.raises(CameraError, match="two numbers each"):
        Camera.create("PINHOLE", [640, 384], focal, center)


@pytest.mark.parametrize(
    ("model", "size", "focal", "message"),
    [
        ("PINHOLE", (640, 480), (0.0, 0.0), "focal length"),
        ("PINHOLE", (640, 480), (float("nan"), 300), "cannot be"),
        ("PINHOLE", (0, 480), (300, 300), "cannot be"),
        ("thin_prism", (640, 480), (300, 300), "not supported"),
    ],
)
def test_impossible_cameras_are_refused_in_one_line(model, size, focal, message) -> None:
    with pytest.raises(CameraError, match=message) as error:
        Camera.create(model, size, focal, (320, 240))
    assert "\n" not in str(error.value)


# --- covariances ---


def test_covariance_changes_frame_as_samples_do() -> None:
    """Perturb the camera by its twist, look at the vehicle: the spread is what we compute."""
    rng = np.random.default_rng(1)
    T_map_base = se3.make(so3_exp(torch.tensor([0.2, -0.1, 0.9], dtype=torch.float64)), [30, -8, 2])
    T_base_cam = se3.make(se3.R_BASE_OPTICAL, [1.2, 0.3, 1.5])
    root = np.diag([0.01, 0.02, 0.03, 0.002, 0.004, 0.003]) @ (
        np.eye(6) + 0.3 * rng.standard_normal((6, 6))
    )
    samples = 10_000
    twists_cam = torch.from_numpy(rng.standard_normal((samples, 6)) @ root.T)
    T_cam_map = Pose.from_matrix(torch.from_numpy(se3.inverse(T_map_base @ T_base_cam)))
    T_map_cam = Pose(T_cam_map.R[None], T_cam_map.t[None]).retract(twists_cam).inverse().matrix()
    bases = T_map_cam.numpy() @ se3.inverse(T_base_cam)
    errors = np.stack([cov.base_error(T, T_map_base) for T in bases])
    predicted = cov.base_covariance_from_cam(root @ root.T, T_map_base, T_base_cam)
    sigma = np.sqrt(np.diag(predicted))
    np.testing.assert_allclose(
        np.cov(errors.T) / np.outer(sigma, sigma), predicted / np.outer(sigma, sigma), atol=0.05
    )
    back = cov.cam_covariance_from_base(predicted, T_map_base, T_base_cam)
    np.testing.assert_allclose(back, root @ root.T, atol=1e-12)


@given(twists, st.lists(st.floats(-1, 1), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_perturbed_base_is_off_by_the_perturbation(pose: list[float], error: list[float]) -> None:
    T = pose_of(pose).matrix().numpy()
    found = cov.base_error(cov.perturb_base(T, np.array(error)), T)
    np.testing.assert_allclose(found, error, atol=1e-7)


# --- a rolling shutter ---

# A car at 15 m/s that turns by 1 rad/s and pitches, as the camera moves in 30 ms.
MOTION = se3.make(cv2.Rodrigues(np.array([0.003, 0.03, -0.002]))[0], [0.007, -0.002, 0.45])
SHARES = [0.0, 0.5, 1.0]


def far_points() -> torch.Tensor:
    return 2 * random_points()


def moved(T_first_last: np.ndarray, share: float) -> Pose:
    """The motion for a share of its time, exactly."""
    from scipy.linalg import expm, logm

    return Pose.from_matrix(torch.from_numpy(np.real(expm(share * logm(T_first_last)))))


@pytest.mark.parametrize("stamp_share", SHARES)
@pytest.mark.parametrize("model", ["PINHOLE", "FULL_OPENCV", "OPENCV_FISHEYE"])
def test_a_rolling_shutter_shows_points_from_where_their_row_is_read(
    model: str, stamp_share: float
) -> None:
    """Against the same camera at rest, held at the pose of each row."""
    camera = Camera.from_colmap(model, 640, 480, MODELS[model])
    points = far_points()
    pixels, valid = camera.rolling(MOTION, stamp_share).project(points)
    assert valid.sum() > 100
    shift = (pixels - camera.project(points)[0])[valid].norm(dim=-1)
    assert shift.max() > 2
    for point, pixel in zip(points[valid][:30], pixels[valid][:30], strict=True):
        T_stamp_row = moved(MOTION, float(pixel[1]) / (camera.height - 1) - stamp_share)
        still, _ = camera.project(T_stamp_row.inverse().transform(point[None]))
        torch.testing.assert_close(still[0], pixel, atol=0.05, rtol=0)


@pytest.mark.parametrize("stamp_share", SHARES)
@pytest.mark.parametrize("model", ["PINHOLE", "FULL_OPENCV", "OPENCV_FISHEYE"])
def test_jacobian_is_the_derivative_of_a_rolling_shutter(model: str, stamp_share: float) -> None:
    camera = Camera.from_colmap(model, 640, 480, MODELS[model]).rolling(MOTION, stamp_share)
    points, step = far_points(), 1e-6
    _, valid, J = camera.project_with_jacobian(points)
    numeric = torch.stack(
        [
            (camera.project(points + d)[0] - camera.project(points - d)[0]) / (2 * step)
            for d in step * torch.eye(3, dtype=torch.float64)
        ],
        -1,
    )
    scale = numeric[valid].norm(dim=(-2, -1))
    assert (
        (J - numeric)[valid].norm(dim=(-2, -1)) / scale
    ).max() < 0.04  # it ignores the turn of up to 0.03 rad


def test_a_rolling_shutter_goes_with_the_image_that_is_resized_or_cut() -> None:
    camera = Camera.from_colmap("PINHOLE", 640, 480, MODELS["PINHOLE"]).rolling(MOTION, 0.5)
    points = far_points()
    pixels, _ = camera.project(points)
    resized, _ = camera.scale((0.4, 0.3)).project(points)
    factor = torch.tensor([0.4, 0.3])
    torch.testing.assert_close(resized, (pixels + 0.5) * factor - 0.5, atol=1e-2, rtol=0)
    cut, _ = camera.crop((10, 20), (300, 200)).project(points)
    torch.testing.assert_close(cut, pixels - torch.tensor([10, 20]), atol=0.05, rtol=0)
    both = Camera.stack([camera, camera.scale(0.5)])
    several, _ = both.project(points.expand(2, -1, -1))
    torch.testing.assert_close(several[0], pixels)
    torch.testing.assert_close(both[torch.tensor([1])].project(points)[0][0], several[1])


def test_a_shutter_that_rolls_while_nothing_moves_changes_nothing() -> None:
    camera = Camera.from_colmap("PINHOLE", 640, 480, MODELS["PINHOLE"])
    for still, rolling in zip(
        camera.project_with_jacobian(far_points()),
        camera.rolling(np.eye(4), 0.0).project_with_jacobian(far_points()),
        strict=True,
    ):
        torch.testing.assert_close(rolling, still)
