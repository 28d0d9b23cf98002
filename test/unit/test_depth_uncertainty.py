"""What uncertain depths of the map's points do to a pose, and how uncertain they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.alignment import DAMPING, observations, poses_of, scene
from pixloc_ros.alignment.coarse_to_fine import FINE, Aligner, Stage
from pixloc_ros.alignment.map_uncertainty import with_map_covariance
from pixloc_ros.alignment.problems import AlignmentProblem
from pixloc_ros.config import AlignmentConfig, HypothesesConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.maps.build.depth_uncertainty import MAX_SIGMA, PointImage, depth_sigmas
from pixloc_ros.maps.tiles import POINT_ARRAYS, Tile
from pixloc_ros.types import PosePrior

ALIGNER = Aligner(DAMPING, AlignmentConfig(), HypothesesConfig())
PINHOLE = Camera.create("PINHOLE", (640, 480), (500.0, 500.0), (319.5, 239.5))
NOISE_PX = 0.7


def images_at(places: list[float], count: int) -> list[PointImage]:
    """Cameras side by side that see all points."""
    poses = [se3.inverse(se3.make(np.eye(3), [x, 0.0, 0.0])) for x in places]
    return [PointImage(PINHOLE, T, np.arange(count)) for T in poses]


def triangulated(images: list[PointImage], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) from noisy keypoints by Gauss-Newton, and their mean reprojection errors."""
    rng = np.random.default_rng(2)
    seen = [project(image, points)[0] for image in images]
    seen = [pixels + rng.normal(0, NOISE_PX, pixels.shape) for pixels in seen]
    found = points.copy()
    for _ in range(4):
        H, g = np.zeros((len(points), 3, 3)), np.zeros((len(points), 3, 1))
        for image, pixels in zip(images, seen, strict=True):
            now, J = project(image, found)
            H += J.transpose(0, 2, 1) @ J
            g += J.transpose(0, 2, 1) @ (pixels - now)[..., None]
        found = found + np.linalg.solve(H, g)[..., 0]
    errors = [
        np.linalg.norm(project(image, found)[0] - pixels, axis=1)
        for image, pixels in zip(images, seen, strict=True)
    ]
    return found, np.mean(errors, axis=0)


def project(image: PointImage, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points_cam = torch.from_numpy(se3.transform(image.T_cam_world, points))
    pixels, _, J = PINHOLE.project_with_jacobian(points_cam)
    return pixels.numpy(), J.numpy() @ image.T_cam_world[:3, :3]


@pytest.mark.parametrize("places", [[0.0, 0.5, 1.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2]])
def test_depths_are_as_uncertain_as_triangulation_leaves_them(places: list[float]) -> None:
    rng = np.random.default_rng(1)
    depth = rng.choice([5.0, 15.0], 4000)
    points = np.stack([*rng.uniform(-0.2, 0.2, (2, 4000)), np.ones(4000)], -1) * depth[:, None]
    images = images_at(places, len(points))
    found, errors_px = triangulated(images, points)
    sigma = depth_sigmas(found, images, errors_px)
    for z in (5.0, 15.0):
        spread = np.std(found[depth == z, 2] - z) / z
        assert np.median(sigma[depth == z]) == pytest.approx(spread, rel=0.1)


def test_points_of_a_cloud_are_exact_and_those_of_one_image_are_anywhere() -> None:
    points = np.array([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [1.0, 1.0, 5.0]])
    images = images_at([0.0, 1.0], 2)
    images[0] = replace(images[0], points=np.arange(3))
    sigma = depth_sigmas(points, images, np.array([-1.0, 0.5, 0.5]))
    assert sigma[0] == 0
    assert 0 < sigma[1] < 0.02
    assert sigma[2] == MAX_SIGMA


def test_a_pose_moves_as_the_changes_of_the_gradients_tell() -> None:
    """The points are off along their rays from a camera that was 2 m to the right."""
    pyramid, view = scene()
    errors = 0.004 * (view.points - torch.tensor([2.0, 0.0, 0.0]))
    off = replace(view, points=view.points + errors)
    found = ALIGNER.align(observations(pyramid, off), poses_of([0.0] * 6))
    system = ALIGNER.system(observations(pyramid, view)[0], Stage(FINE, 0, keep=None))
    here = poses_of([0.0] * 6)
    changes = system.gradient_changes(here, errors)[0].sum(0).double()
    twist = -torch.linalg.solve(system.linearize(here).hessian[0].double(), changes)
    expected = se3.inverse(Pose.exp(twist).matrix().numpy())
    moved = np.linalg.norm(expected[:3, 3])
    assert moved > 3e-3
    assert np.linalg.norm(found.T_map_cam[:3, 3] - expected[:3, 3]) < 0.15 * moved


def map_sigmas_m(view) -> np.ndarray:
    """Sigmas of the position that the map adds to an alignment at the truth; zero: none."""
    pyramid, _ = scene()
    seen = observations(pyramid, replace(scene()[1], depth_errors=view.depth_errors))
    found = ALIGNER.align(seen, poses_of([0.0] * 6))
    prior = PosePrior(np.eye(4), diagonal(1, 1), "test", 0)
    problem = AlignmentProblem((), tuple(seen), poses_of([0.0] * 6), prior, np.eye(4))
    covariance = with_map_covariance(found, problem, ALIGNER).map_covariance_cam
    return np.zeros(3) if covariance is None else np.sqrt(np.diag(covariance)[:3])


def test_the_farther_from_the_mapped_route_the_more_depths_matter() -> None:
    _, view = scene()
    on_route, beside, far_beside = (
        map_sigmas_m(replace(view, depth_errors=0.01 * (view.points - torch.tensor([x, 0.0, 0.0]))))
        for x in (0.0, 1.0, 3.0)
    )
    assert map_sigmas_m(view).max() == 0
    assert on_route[0] < beside[0] < far_beside[0]
    assert far_beside[0] > 2 * on_route[0]


def test_a_tile_of_an_older_map_has_no_known_depth_uncertainty() -> None:
    names = ("keyframes", "observation_offsets", "observation_point", "observation_row")
    arrays = {name: torch.zeros(3) for name in (*names, *POINT_ARRAYS)}
    del arrays["point_depth_sigma"]
    assert not Tile.of(arrays, 0, np.zeros(3)).point_depth_sigma.any()
