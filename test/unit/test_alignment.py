"""Levenberg-Marquardt on an exact scene: a textured plane whose features are known everywhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.alignment import (
    CAMERA,
    DAMPING,
    DIMS,
    OFFSET,
    noisy,
    observations,
    poses_of,
    scene,
    system_of,
    with_further,
)
from pixloc_ros.alignment.coarse_to_fine import Aligner
from pixloc_ros.alignment.correlation import Correlation
from pixloc_ros.alignment.initial_poses import draw_initial_poses
from pixloc_ros.alignment.levenberg_marquardt import damped_step, minimize
from pixloc_ros.alignment.policy import Policy
from pixloc_ros.alignment.problems import local_poses
from pixloc_ros.alignment.result import scaled_condition
from pixloc_ros.alignment.robust import RobustCost
from pixloc_ros.config import AcceptanceConfig, AlignmentConfig, HypothesesConfig
from pixloc_ros.geometry.covariance import diagonal
from pixloc_ros.geometry.pose import Pose

ALIGNER = Aligner(DAMPING, AlignmentConfig(), HypothesesConfig())
POLICY = Policy.of(AlignmentConfig())


def test_alignment_finds_the_pose_to_millimetres() -> None:
    pyramid, view = scene()
    found = ALIGNER.align(observations(pyramid, view), poses_of(OFFSET))
    assert found.converged
    assert np.linalg.norm(found.T_map_cam[:3, 3]) < 3e-3
    assert np.abs(found.T_map_cam[:3, :3] - np.eye(3)).max() < 5e-4
    assert found.inlier_share > 0.5
    assert np.linalg.norm(found.T_map_cam_prior[:3, 3]) > 0.4
    visible = np.isfinite(found.residuals)
    expected, _ = CAMERA.project(torch.from_numpy(found.points_map))
    np.testing.assert_allclose(found.pixels[visible], expected[visible], atol=0.3)


def test_a_map_far_from_zero_gives_the_same_pose_to_a_millimetre() -> None:
    near = ALIGNER.align(*align_arguments((0, 0, 0)))
    far = ALIGNER.align(*align_arguments((4.5e5, 5.4e6, 300.0)))
    moved = far.T_map_cam[:3, 3] - np.array((4.5e5, 5.4e6, 300.0))
    np.testing.assert_allclose(moved, near.T_map_cam[:3, 3], atol=1e-6)


def align_arguments(origin: tuple[float, ...]) -> tuple:
    pyramid, view = scene(origin=origin)
    return observations(pyramid, view), poses_of(OFFSET)


def test_one_step_with_a_second_observation_of_each_point_lowers_the_error() -> None:
    """Two observations err apart. The sixteen errors fall by the square root of two, or nearly."""
    pyramid, view = scene()
    before, after = [], []
    for seed in range(16):
        one, other = noisy(view, 2 * seed), noisy(view, 2 * seed + 1)
        found = ALIGNER.align(observations(pyramid, one), poses_of(OFFSET))
        initial = local_poses(found.T_map_cam[None], view)
        refined, _ = ALIGNER.step_on_fine_level(
            observations(pyramid, with_further(one, other)), initial
        )
        before.append(initial.t.norm())
        after.append(refined.t.norm())
    assert 0.5 < np.mean(after) / np.mean(before) < 0.85


@pytest.mark.parametrize("seed", range(3))
def test_a_refining_step_does_not_raise_the_cost(seed: int) -> None:
    """Far from the minimum, where a step may lead anywhere."""
    pyramid, view = scene()
    twist = torch.randn(6, generator=torch.Generator().manual_seed(seed)) * 0.3
    found, system = poses_of(twist.tolist()), system_of()
    refined, at = ALIGNER.step_on_fine_level(observations(pyramid, view), found)
    assert system.cost(refined) <= system.cost(found)
    # Both are means of the same float32 costs, summed alike; each cost is at most 1.
    assert at.cost == pytest.approx(float(system.cost(found)), abs=1e-6)


def test_many_initial_poses_reach_what_one_cannot() -> None:
    """All but one lie far beyond the basin: the best of them is reported, and it is right."""
    pyramid, view = scene()
    far = [[3.0, 1.0, 0, 0, 0.4, 0], [-3.0, 0, 0, 0, -0.4, 0], [0, 3.0, 0, 0.4, 0, 0]]
    alone = ALIGNER.align(observations(pyramid, view), poses_of(far[0]))
    together = ALIGNER.align(observations(pyramid, view), poses_of(*far, OFFSET))
    assert np.linalg.norm(alone.T_map_cam[:3, 3]) > 0.5
    assert np.linalg.norm(together.T_map_cam[:3, 3]) < 3e-3
    assert together.hypotheses == 4
    assert together.cost < alone.cost


def test_equal_initial_poses_are_merged_and_leave_no_runner_up() -> None:
    pyramid, view = scene()
    found = ALIGNER.align(observations(pyramid, view), poses_of(OFFSET, OFFSET, OFFSET))
    assert found.runner_up_cost == float("inf")


@pytest.mark.parametrize("level", [0, 1])
def test_problems_screened_as_one_batch_come_out_as_each_for_itself(level: int) -> None:
    """Views of different numbers of points, each with an initial pose of its own."""
    sizes, offsets = (300, 120, 200), (OFFSET, [0.0] * 6, [0.2, 0, 0, 0, 0.01, 0])
    problems = [
        (observations(*scene(size)), poses_of(offset))
        for size, offset in zip(sizes, offsets, strict=True)
    ]
    together = ALIGNER.screen_each(problems, level)
    for problem, (pose, cost) in zip(problems, together, strict=True):
        ((alone, cost_alone),) = ALIGNER.screen_each([problem], level)
        torch.testing.assert_close(pose.matrix(), alone.matrix(), atol=1e-4, rtol=1e-4)
        assert cost == pytest.approx(cost_alone, abs=1e-4)


def test_poses_that_agree_too_little_on_the_coarse_level_go_no_further() -> None:
    """With a share of 1 only the best goes on, so nothing is left to be its runner-up."""
    pyramid, view = scene()
    poses = poses_of(OFFSET, [3.0, 1.0, 0, 0, 0.4, 0])
    strict = replace(ALIGNER, hypotheses=HypothesesConfig(min_agreement_share=1.0))
    lenient = replace(ALIGNER, hypotheses=HypothesesConfig(min_agreement_share=0.0))
    assert lenient.align(observations(pyramid, view), poses).runner_up_cost < np.inf
    found = strict.align(observations(pyramid, view), poses)
    assert found.runner_up_cost == np.inf
    assert np.linalg.norm(found.T_map_cam[:3, 3]) < 3e-3


def test_the_best_iterate_is_kept() -> None:
    """With steps that are far too long the cost goes up; what comes back is never worse."""
    system = system_of(reference=F.normalize(torch.randn(500, DIMS[2]), dim=-1))
    start = poses_of([0.0] * 6)
    result = minimize(system, start, torch.zeros(6), 10, POLICY)
    assert result.cost[0] <= system.linearize(start).cost[0]


def test_gradient_and_hessian_are_those_of_the_cost() -> None:
    """Gauss-Newton for fixed weights: the gradient is the derivative of sum w |r|^2 / 2."""
    system = system_of()
    pose = Pose.exp(torch.tensor([[0.02, -0.01, 0.03, 0.002, 0.001, -0.002]]))
    at = system.linearize(pose)
    weight = RobustCost(0.1).weight(at.squared).nan_to_num()

    def cost(twist: torch.Tensor) -> torch.Tensor:
        squared = system.linearize(pose.retract(twist)).squared.nan_to_num()
        return 0.5 * (weight * squared).sum()

    numeric = torch.autograd.functional.jacobian(cost, torch.zeros(1, 6))[0]
    torch.testing.assert_close(at.gradient[0], numeric, atol=1e-3, rtol=1e-3)
    assert (torch.linalg.eigvalsh(at.hessian) > 0).all()


@given(st.integers(0, 10_000), st.sampled_from(["random", "behind", "collinear", "nan", "zero"]))
@settings(max_examples=25, deadline=None)
def test_hopeless_problems_end_quietly(seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(64, 3, generator=generator) * 3 + torch.tensor([0, 0, 6.0])
    confidence = torch.ones(64)
    if kind == "behind":
        points[:, 2] = -points[:, 2].abs()
    elif kind == "collinear":
        points = torch.linspace(0, 1, 64)[:, None] * torch.tensor([1.0, 0.5, 0.2]) + 5
    elif kind == "nan":
        points[::3] = torch.nan
    elif kind == "zero":
        confidence = torch.zeros(64)
    reference = F.normalize(torch.randn(64, DIMS[2], generator=generator), dim=-1)
    system = system_of(points=points, reference=reference, confidence=confidence)
    result = minimize(system, poses_of([0.0] * 6, OFFSET), DAMPING[2], 8, POLICY)
    assert result.T_cam_local.R.isfinite().all()
    assert result.T_cam_local.t.isfinite().all()
    assert not result.cost.isnan().any()
    if kind == "behind":
        assert result.failed.all()
        torch.testing.assert_close(result.T_cam_local.t, poses_of([0.0] * 6, OFFSET).t)


def test_points_that_are_not_finite_change_nothing() -> None:
    clean = system_of()
    points = clean.points.clone()
    points[::7] = torch.nan
    points[3] = torch.inf
    confidence = clean.confidence.clone()
    confidence[::7] = confidence[3] = 0.0
    broken = system_of(points=points, confidence=confidence)
    without = system_of(confidence=confidence)
    one, other = broken.linearize(poses_of(OFFSET)), without.linearize(poses_of(OFFSET))
    torch.testing.assert_close(one.hessian, other.hessian)
    torch.testing.assert_close(one.gradient, other.gradient)


@pytest.mark.parametrize("level", [0, 1])
def test_products_by_cells_are_those_of_the_features(level: int) -> None:
    """Inside the map, at its border, outside, and where nothing is finite."""
    system = system_of(level, confidence=torch.linspace(0, 1, 500))
    by_cells = replace(system, correlation=Correlation.of(system.level, system.reference))
    system.points[7] = torch.nan
    poses = poses_of([0.0] * 6, OFFSET, [2.0, 1.0, 0.0, 0.1, 0.2, 0.0], [0, 0, 0, 0, 3.0, 0])
    one, other = system.linearize(poses), by_cells.linearize(poses)
    torch.testing.assert_close(other.squared, one.squared, atol=1e-5, rtol=1e-4, equal_nan=True)
    torch.testing.assert_close(other.cost, one.cost, atol=1e-5, rtol=1e-5)
    for name in ("gradient", "hessian"):
        found, expected = getattr(other, name), getattr(one, name)
        scale = one.hessian.abs().amax((-1, -2)).clamp(min=1).sqrt()[:, None]
        scale = scale[..., None] ** 2 if name == "hessian" else scale
        torch.testing.assert_close(found / scale, expected / scale, atol=1e-4, rtol=0)


def test_one_bad_initial_pose_does_not_spoil_the_others() -> None:
    away = [0, 0, 0, 0, 3.0, 0]  # looks backwards
    both = minimize(system_of(), poses_of(away, OFFSET), DAMPING[2], 10, POLICY)
    alone = minimize(system_of(), poses_of(OFFSET), DAMPING[2], 10, POLICY)
    assert both.failed.tolist() == [True, False]
    torch.testing.assert_close(both.T_cam_local.t[1], alone.T_cam_local.t[0], atol=1e-4, rtol=0)


def test_the_lm_step_is_that_of_the_reference(parity) -> None:
    data = {k: torch.from_numpy(v) for k, v in np.load(parity / "lmstep.npz").items()}
    unbounded = replace(POLICY, max_step_m=math.inf, max_step_deg=math.inf)
    step = damped_step(data["H"], data["g"], data["lam"], unbounded)
    usable = data["mask"].clone()
    usable[2] = False  # rank deficient: the two floors differ, see below
    torch.testing.assert_close(step[usable], data["delta"][usable], rtol=1e-3, atol=1e-6)
    assert step.isfinite().all()


def test_long_steps_are_shortened() -> None:
    policy = Policy.of(AlignmentConfig(max_step_m=0.5, max_step_deg=2.0))
    step = damped_step(torch.eye(6)[None], torch.full((1, 6), 100.0), torch.zeros(6), policy)
    assert step[:, :3].norm() <= 0.5 + 1e-6
    assert torch.rad2deg(step[:, 3:].norm()) <= 2.0 + 1e-5


@pytest.mark.parametrize(("sigma_m", "sigma_deg", "expected"), [(0.05, 0.1, 1), (20.0, 40.0, 256)])
def test_the_count_of_initial_poses_follows_the_prior(sigma_m, sigma_deg, expected) -> None:
    _, view = scene()
    prior = poses_of([0.1] * 6)[0]
    poses, needed = draw_initial_poses(
        prior,
        diagonal(sigma_m, sigma_deg),
        view.points,
        CAMERA.to(torch.float32),
        HypothesesConfig(),
    )
    assert len(poses.t) == expected <= needed
    torch.testing.assert_close(poses.t[0], prior.t)


def test_condition_of_a_hessian_does_not_depend_on_units() -> None:
    H = np.array([[2.0, 0.5], [0.5, 1.0]])
    scale = np.diag([1000.0, 0.01])
    assert scaled_condition(scale @ H @ scale) == pytest.approx(scaled_condition(H))
    assert scaled_condition(np.zeros((6, 6))) == float("inf")


def test_a_repeating_wall_is_ambiguous() -> None:
    """Features repeat every 2 m: from an initial pose one period away another pose fits as well."""
    pyramid, view = scene(half_width_m=3.0, period_m=2.0)
    one_period = [2.0, 0.0, -0.2, 0.0, 0.0, 0.0]  # along the plane, which is tilted
    found = ALIGNER.align(observations(pyramid, view), poses_of([0.0] * 6, one_period))
    config = AcceptanceConfig()
    assert found.runner_up_loss < config.min_runner_up_loss
    pyramid, view = scene(half_width_m=3.0)
    unique = ALIGNER.align(observations(pyramid, view), poses_of([0.0] * 6, one_period))
    assert unique.runner_up_loss > config.min_runner_up_loss
