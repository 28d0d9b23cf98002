"""A drive that never was: truth on a curve, priors that are off, and what a localizer might say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from pixloc_ros.evaluation.frames import FrameResult, frame_result
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.trajectory import Trajectory
from pixloc_ros.types import Alignment, Estimate, PosePrior, Reason, Status

PERIOD_NS = 100_000_000
SIGMA_M, SIGMA_DEG = 0.02, 0.1
COVARIANCE = np.diag([SIGMA_M**2] * 3 + [np.deg2rad(SIGMA_DEG) ** 2] * 3)


def drive(count: int = 30) -> Trajectory:
    """A quarter of a circle at 10 Hz, looking ahead."""
    angles = np.linspace(0.0, np.pi / 2, count)
    poses = [
        se3.make(
            Rotation.from_euler("zyx", [a, 0.02, -0.01]).as_matrix(),
            [40 * np.sin(a), 40 - 40 * np.cos(a), 1.5],
        )
        for a in angles
    ]
    return Trajectory(np.arange(count) * PERIOD_NS, np.stack(poses))


def disturb(T: np.ndarray, rng: np.random.Generator, sigma_m: float, sigma_deg: float):
    """Normal errors in map axes."""
    turn = Rotation.from_rotvec(np.deg2rad(rng.normal(0.0, sigma_deg, 3))).as_matrix()
    return se3.make(turn @ T[:3, :3], T[:3, 3] + rng.normal(0.0, sigma_m, 3))


def alignment(T_map_base: np.ndarray, T_map_base_prior: np.ndarray, points: int = 40) -> Alignment:
    """Points scattered over an image of 320x200; the first is behind the camera."""
    rng = np.random.default_rng(points)
    pixels = rng.uniform([0, 0], [320, 200], (points, 2)).astype(np.float32)
    pixels[0] = np.nan
    residuals = rng.uniform(0.0, 1.2, points).astype(np.float32)
    residuals[0] = np.nan
    return Alignment(
        T_map_cam=T_map_base @ se3.base_from_optical(),
        T_map_cam_prior=T_map_base_prior @ se3.base_from_optical(),
        hessian=np.eye(6),
        covariance_cam=COVARIANCE,
        cost=0.3,
        cost_per_level=(0.5, 0.4, 0.3),
        inlier_share=0.8,
        iterations=(5, 4, 3),
        converged=True,
        condition=50.0,
        hypotheses=1,
        runner_up_cost=np.inf,
        points_map=rng.normal(size=(points, 3)),
        pixels_prior=pixels + np.float32(6.0),
        pixels=pixels,
        residuals=residuals,
    )


def estimates(truth: Trajectory, seed: int = 0) -> list[Estimate]:
    """One OK estimate per true pose, with errors as its covariance says."""
    rng = np.random.default_rng(seed)
    result = []
    for i, (stamp_ns, T) in enumerate(zip(truth.stamps_ns.tolist(), truth.T_map_base, strict=True)):
        prior = PosePrior(disturb(T, rng, 0.5, 1.0), np.eye(6), "odometry", stamp_ns)
        found = disturb(T, rng, SIGMA_M, SIGMA_DEG)
        result.append(
            Estimate(
                Status.OK, Reason.OK, "localized", stamp_ns, f"{i:06d}.jpg", found, COVARIANCE,
                found, prior, alignment(found, prior.T_map_base), ("a", "b"),
                {"features": 100.0 + i, "alignment": 50.0},
            )
        )  # fmt: skip
    return result


def records(found: list[Estimate], truth: Trajectory | None = None) -> list[FrameResult]:
    """What a run writes of each estimate."""
    return [frame_result(estimate, truth) for estimate in found]


def rejected(estimate: Estimate) -> Estimate:
    """The same, but refused."""
    return replace(
        estimate, status=Status.REJECTED, reason=Reason.HIGH_COST, T_map_base=None, covariance=None,
        message="cost 0.83 is above 0.80",
    )  # fmt: skip


def without_prior(estimate: Estimate) -> Estimate:
    """The same frame, never looked at."""
    return Estimate(Status.FAILED, Reason.NO_PRIOR, "no prior", estimate.stamp_ns, estimate.name)
