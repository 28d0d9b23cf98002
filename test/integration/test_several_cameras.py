"""Several cameras of one vehicle give one pose, and one that is no use does not stop the others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.alignment import OFFSET, observations, poses_of, scene
from helpers.street import SMALL, small_street
from pixloc_ros.alignment.coarse_to_fine import Aligner, Stage
from pixloc_ros.alignment.rig import CameraObservation, RigSystem
from pixloc_ros.config import AlignmentConfig, HypothesesConfig, flatten, from_flat
from pixloc_ros.demo.street.render import render
from pixloc_ros.demo.street.sessions import SESSIONS
from pixloc_ros.evaluation.shots import posed_frames
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal, perturb_base
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.files.posed_images import read_posed_images
from pixloc_ros.types import Frame, PosePrior, Status

ALIGNER = Aligner(torch.full((3, 6), 1e-3), AlignmentConfig(), HypothesesConfig())
numbers = st.lists(st.floats(-2, 2), min_size=6, max_size=6)


def part_of(observation: CameraObservation, some: slice) -> CameraObservation:
    view = observation.view
    return replace(
        observation,
        view=replace(
            view,
            points=view.points[some],
            features=tuple(f[some] for f in view.features),
            confidences=tuple(c[some] for c in view.confidences),
        ),
    )


@settings(max_examples=25, deadline=None)
@given(numbers)
def test_normal_equations_of_another_camera_are_those_of_the_lead(twist) -> None:
    """The step of a turned lead moves the camera that took the image as that camera's own step."""
    (observation,) = observations(*scene(300))
    system, here = (
        ALIGNER.system(observation, Stage(0, 1, 1)),
        poses_of([0.05, 0.02, 0.03, 0, 0.01, 0]),
    )
    T_cam_lead = Pose.exp(torch.tensor([twist]))
    own, rig = system.linearize(here), RigSystem([system], T_cam_lead)
    lead = rig.linearize(T_cam_lead.inverse() @ here)
    assert float(lead.cost) == pytest.approx(float(own.cost), abs=1e-4)
    step_own = torch.linalg.solve(own.hessian.double(), -own.gradient.double())
    step_lead = torch.linalg.solve(lead.hessian.double(), -lead.gradient.double())
    small = 1e-3  # the two are equal to first order
    moved = T_cam_lead.to(torch.float64) @ Pose.exp(small * step_lead)
    moved = moved @ T_cam_lead.to(torch.float64).inverse()
    expected = Pose.exp(small * step_own).matrix()
    torch.testing.assert_close(moved.matrix(), expected, rtol=0, atol=2e-2 * small)


def test_one_image_told_as_two_cameras_gives_the_same_pose() -> None:
    (whole,) = observations(*scene())
    halves = [part_of(whole, slice(0, None, 2)), part_of(whole, slice(1, None, 2))]
    one, two = (ALIGNER.align(s, poses_of(OFFSET)) for s in ([whole], halves))
    np.testing.assert_allclose(two.T_map_cam, one.T_map_cam, atol=1e-4)
    assert two.cost == pytest.approx(one.cost, abs=1e-3)
    assert two.points_per_camera == (250, 250)
    np.testing.assert_array_equal(two.of_camera(1).points_map, two.points_map[250:])


# --- the whole localizer, with cameras turned to the sides ------------------------------------

SHARE = "acceptance.min_camera_share"
YAWS_DEG = {"front": 0.0, "left": 14.0, "right": -14.0}


@pytest.fixture(scope="module")
def localizer(street: Path) -> Localizer:
    return Localizer(from_flat({"map": str(street / "map"), "threads": 1}))


@pytest.fixture(scope="module")
def case(street: Path) -> tuple[list[Frame], np.ndarray]:
    """What three cameras see in the middle of the drive, and the true T_map_base."""
    folder = street / "data" / "drive"
    drive = read_posed_images(folder / "meta.json", folder / "images")
    front, T_map_base = next(posed_frames(drive, [len(drive.files) // 3]))
    world, rng = small_street("later"), np.random.default_rng(3)
    frames = []
    for name, yaw_deg in YAWS_DEG.items():
        turned = se3.make(Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix(), [0, 0, 0])
        T_base_cam = turned @ front.T_base_cam
        view = render(world, T_map_base @ T_base_cam, SMALL.K, SMALL.width, SMALL.height)
        image = SESSIONS["later"].exposure.apply(view.image_rgb, rng)
        frames.append(replace(front, image_rgb=image, T_base_cam=T_base_cam, camera_name=name))
    return frames, T_map_base


def prior_near(T_map_base: np.ndarray, frame: Frame) -> PosePrior:
    off = np.array([0.3, -0.2, 0.05, *np.deg2rad([0.2, -0.3, 1.0])])
    return PosePrior(perturb_base(T_map_base, off), diagonal(0.4, 1.0), "test", frame.stamp_ns)


def black(frame: Frame) -> Frame:
    return replace(frame, image_rgb=np.zeros_like(frame.image_rgb))


@pytest.mark.slow
def test_more_cameras_make_the_pose_surer(localizer, case) -> None:
    (front, *others), T_map_base = case
    prior = prior_near(T_map_base, front)
    alone = localizer.localize(front, prior)
    together = localizer.localize(front, prior, others)
    assert together.ok, together.message
    assert together.cameras == ("front", "left", "right")
    assert se3.distance_m(together.T_map_base, T_map_base) < 0.02
    assert se3.angle_deg(together.T_map_base, T_map_base) < 0.1
    volume = [np.linalg.slogdet(e.alignment.covariance_cam)[1] for e in (alone, together)]
    assert volume[1] < volume[0]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_covered_camera_is_left_out(localizer, case, lost) -> None:
    frames, T_map_base = list(case[0]), case[1]
    frames[lost] = black(frames[lost])
    found = localizer.localize(frames[0], prior_near(T_map_base, frames[0]), frames[1:])
    assert found.ok, found.message
    assert tuple(YAWS_DEG)[lost] not in found.cameras
    assert len(found.cameras) == 2
    assert se3.distance_m(found.T_map_base, T_map_base) < 0.03


@pytest.mark.slow
def test_a_camera_may_agree_as_little_as_the_configuration_says_now(localizer, case) -> None:
    frames, T_map_base = list(case[0]), case[1]
    frames[1], before = black(frames[1]), localizer.config
    try:
        localizer.holder.replace(from_flat(dict(flatten(before)) | {SHARE: 0.0}))
        found = localizer.localize(frames[0], prior_near(T_map_base, frames[0]), frames[1:])
    finally:
        localizer.holder.replace(before)
    assert found.cameras == tuple(YAWS_DEG)


@pytest.mark.slow
def test_cameras_that_are_all_covered_give_no_pose(localizer, case) -> None:
    frames, T_map_base = case
    dark = [black(frame) for frame in frames]
    found = localizer.localize(dark[0], prior_near(T_map_base, dark[0]), dark[1:])
    assert found.status is Status.REJECTED
    assert found.T_map_base is None


@pytest.mark.slow
def test_a_camera_that_looks_off_the_map_is_left_out(localizer, case) -> None:
    (front, left, _), T_map_base = case
    back = se3.make(Rotation.from_euler("z", 180, degrees=True).as_matrix(), [0, 0, 0])
    away = replace(left, T_base_cam=back @ left.T_base_cam)
    found = localizer.localize(away, prior_near(T_map_base, front), [front])
    assert found.ok, found.message
    assert found.cameras == ("front",)
