"""Training through the alignment: losses and gradients of the reference implementation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from published import fill, numbers_of, pose_of, tensors

from pixloc_ros.alignment.policy import REFERENCE
from pixloc_ros.features import compact
from pixloc_ros.features.vgg import VggNet, vgg19
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training.unrolled import (
    REPROJECTION,
    Loss,
    View,
    pose_loss,
    pyramids,
    refine,
)


def test_the_reprojection_error_is_that_of_the_reference(parity: Path) -> None:
    data = tensors(parity / "losses.npz")
    error = REPROJECTION.cost(data["x"]) / 4
    torch.testing.assert_close(error, data["reproj_loss_of_sqerr"], atol=1e-10, rtol=1e-10)


def loss_of(*offsets_m: float) -> Loss:
    """Of levels that end this far to the side of the truth, 5 m before a wall."""
    camera = Camera.create("PINHOLE", (160, 128), (150, 150), (79.5, 63.5))
    side = torch.linspace(-1, 1, 20, dtype=torch.float64)
    points = torch.stack([side, side.flip(0) / 2, torch.full_like(side, 5)], -1)
    truth = Pose.identity((1,), points)
    poses = [truth.retract(truth.t.new_tensor([[off, 0, 0, 0, 0, 0]])) for off in offsets_m]
    return pose_loss(poses, truth, truth, camera, points, (16, 4, 1))


def test_a_level_counts_where_the_one_before_succeeded() -> None:
    good, lost = loss_of(0.2, 0.1, 0.1), loss_of(20.0, 0.1, 0.1)
    torch.testing.assert_close(good.total, sum(good.levels) / 3)
    torch.testing.assert_close(lost.total, (lost.levels[0] + lost.levels[2]) / 3)
    assert lost.levels[0] == 50.0  # clamped


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "tolerance"), [("f64", "train", 1e-6), ("f32", "eval", 1e-3)]
)
def test_losses_and_gradients_of_a_training_step(
    parity: Path, name: str, mode: str, tolerance: float
) -> None:
    data = tensors(parity / "train_step.npz")
    known = {k.removeprefix(f"{name}_{mode}_"): v for k, v in data.items() if k.startswith(name)}
    network = fill(vgg19())
    network.to(known["loss_total"].dtype).train(mode == "train")
    losses, poses = zip(*training_step(network, data, stops=mode == "eval"), strict=True)
    total = torch.stack([loss.total for loss in losses])
    total.mean().backward()

    close = {"rtol": tolerance, "atol": 0}
    torch.testing.assert_close(total, known["loss_total"], **close)
    start = torch.stack([loss.start for loss in losses])
    torch.testing.assert_close(start, known["loss_reprojection_error_init"], **close)
    for level in range(3):
        error = torch.stack([loss.levels[level] for loss in losses])
        torch.testing.assert_close(error, known[f"loss_reprojection_error_{level}"], **close)
        pose = torch.cat([numbers_of(pose[level]) for pose in poses])
        torch.testing.assert_close(pose, known["T_opt"][level], rtol=0, atol=tolerance)
    check_gradients(network, known, tolerance)


def training_step(network: VggNet, data: dict[str, torch.Tensor], stops: bool) -> Iterator[tuple]:
    """Loss and poses of each of the two pairs."""
    damping = compact.damping(network.theta)
    pyramids_of = {
        side: pyramids(network(images_of(data, side).to(damping)), (16, 4, 1), (160, 128), True)
        for side in ("ref", "query")
    }
    for i, points in enumerate(data["points3D_refcam"].to(damping.dtype)):
        reference, query = (
            View(pyramids_of[side][i], camera_of(data[f"cam_{side}"][i]).to(damping.dtype))
            for side in ("ref", "query")
        )
        truth = pose_of(data["T_query"][i]) @ pose_of(data["T_ref"][i]).inverse()
        start = Pose.identity((1,), points)
        poses = refine(reference, query, points, start, damping, 15, REFERENCE, stops)
        yield pose_loss(poses, start, truth.to(points), query.camera, points, (16, 4, 1)), poses


def images_of(data: dict[str, torch.Tensor], side: str) -> torch.Tensor:
    return torch.stack([data[f"{side}_image_{i}"] for i in (0, 1)]).permute(0, 3, 1, 2)


def camera_of(numbers: torch.Tensor) -> Camera:
    return Camera.create("PINHOLE", *numbers.view(3, 2).tolist())


def check_gradients(network: VggNet, known: dict[str, torch.Tensor], tolerance: float) -> None:
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    compared = 0
    for name, gradient in gradients.items():
        expected = known.get(f"grad_{name}")
        if expected is not None:
            scale = expected.abs().max()
            torch.testing.assert_close(gradient / scale, expected / scale, rtol=0, atol=tolerance)
            compared += 1
    assert compared == 5
    damping = torch.stack([gradients[f"optimizer.{i}.dampingnet.const"] for i in range(3)])
    scale = known["grad_damping"].abs().max()
    # Sums of terms that cancel: in float32 the reference is 7e-4 from its own float64.
    atol = 2 * tolerance
    torch.testing.assert_close(damping / scale, known["grad_damping"] / scale, rtol=0, atol=atol)
    norm = torch.stack([g.double().norm() for g in gradients.values()]).norm()
    torch.testing.assert_close(norm, known["grad_norm_total"], rtol=tolerance, atol=0)
