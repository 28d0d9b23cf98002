"""Reference mode against the outputs of the reference implementation, number by number."""

from pathlib import Path

import pytest
import torch

from helpers.published import (
    FLOAT32_STEP,
    FLOAT64_STEP,
    numbers_of,
    pose_of,
    tensors,
    whole_map,
)
from pixloc_ros.alignment.levenberg_marquardt import damped_step, minimize
from pixloc_ros.alignment.policy import REFERENCE
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.alignment.robust import Barron, Huber, RobustCost
from pixloc_ros.features import architecture, pyramid
from pixloc_ros.features.sampling import FeatureLevel, Sampling, central, cubic, separable
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose, through_transform

System = tuple[LevelSystem, torch.Tensor]


def level_of(features: torch.Tensor, confidence: torch.Tensor | None = None) -> FeatureLevel:
    """A level from maps (C, H, W) and (1, H, W)."""
    if confidence is None:
        confidence = torch.ones_like(features[:1])
    rows = torch.cat([features, confidence]).permute(1, 2, 0).flatten(0, 1)
    return FeatureLevel(rows, *features.shape[1:], stride=1, image_size=torch.zeros(2))


# --- the parts ---


@pytest.mark.parametrize(("name", "kernel", "extra"), [("linear", central, 0), ("cubic", cubic, 1)])
def test_interpolation(parity: Path, name: str, kernel, extra: int) -> None:
    noise = 3.5e-6  # of float32, measured against float64: values and differences of size 3
    close = {"atol": 15 * noise, "rtol": 0}
    data = tensors(parity / "interp.npz")
    level, pixels = level_of(data["F"]), data["pts"]
    for pad in (1, 2, 4):
        sampling = Sampling(separable(kernel), taps=4, border_px=pad + extra)
        mask = sampling.inside(level, pixels)
        torch.testing.assert_close(mask, data[f"{name}_mask_pad{pad}"])
        value, *slopes = sampling.read(level, pixels[mask])[..., :-1].unbind(-2)
        torch.testing.assert_close(value, data[f"{name}_val"][mask], **close)
        gradient = torch.stack(slopes, -1)
        torch.testing.assert_close(gradient, data[f"{name}_grad"][mask], **close)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("squared", Barron(2, 1)),
        ("huber", Huber()),
        ("barron_0_01", Barron(0, 0.1)),
        ("barron_1_2", Barron(1, 2)),
        ("barron_2_1", Barron(2, 1)),
        ("barron_m2_05", Barron(-2, 0.5)),
    ],
)
def test_robust_costs(parity: Path, name: str, loss) -> None:
    data = tensors(parity / "losses.npz")
    torch.testing.assert_close(loss.cost(data["x"]), data[f"{name}_val"], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(loss.weight(data["x"]), data[f"{name}_d1"], atol=1e-10, rtol=1e-10)


def test_the_robust_cost_of_the_reference_is_ours_with_another_scale(parity: Path) -> None:
    data = tensors(parity / "losses.npz")
    ours: RobustCost = REFERENCE.robust
    torch.testing.assert_close(
        ours.weight(data["x"]), data["barron_0_01_d1"], atol=1e-10, rtol=1e-10
    )
    ratio = data["barron_0_01_val"][1:] / ours.cost(data["x"])[1:]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=0, rtol=1e-10)


def test_normalising_features_has_the_derivative_of_the_reference(parity: Path) -> None:
    data = tensors(parity / "losses.npz")

    def unit(x: torch.Tensor) -> torch.Tensor:
        packed = torch.cat([x, x.new_zeros(1)])[None, :, None, None]
        return pyramid.level_of(packed, 1, torch.zeros(2), with_norms=False).rows[0, :-1]

    for x, J in zip(data["Jn_x"], data["Jn"], strict=True):
        numeric = torch.autograd.functional.jacobian(unit, x)
        torch.testing.assert_close(numeric, J, atol=1e-10, rtol=0)


def test_the_damped_step(parity: Path) -> None:
    """All four systems: one of them is rank deficient, one has no rows at all.

    Against float64 the damping is off by 1.6e-6, steps by 2.3e-7 of themselves, poses by 1.2e-7.
    """
    data = tensors(parity / "lmstep.npz")
    damping = architecture.damping(data["theta"])
    torch.testing.assert_close(damping, data["lam"], rtol=3e-5, atol=0)
    usable = data["mask"][:, None]
    H = torch.where(usable[..., None], data["H"], torch.eye(6))
    g = torch.where(usable, data["g"], 0)
    step = damped_step(H, g, damping, REFERENCE)
    torch.testing.assert_close(step, data["delta"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(numbers_of(Pose.exp(step)), data["T_delta"], rtol=1e-4, atol=3e-6)
    moved = pose_of(data["T0"]).retract(step)
    torch.testing.assert_close(numbers_of(moved), data["T_new"], rtol=1e-4, atol=3e-6)
    for name, value in (("delta_lambda0", 0.0), ("delta_lambda001", 0.01)):
        step = damped_step(data["H"][:2], data["g"][:2], torch.full((6,), value), REFERENCE)
        torch.testing.assert_close(step, data[name], rtol=1e-4, atol=1e-7)


# --- whole levels ---


def field(parity: Path, run: int, dtype: torch.dtype, confident: bool) -> System:
    """The system of one run, and its damping. Run 0 is the coarsest level."""
    data = tensors(parity / "optim_field.npz")
    part = {k[3:]: v.to(dtype) for k, v in data.items() if k.startswith(f"L{2 - run}_")}
    vector = part["cam"].double().numpy()
    camera = Camera.create("RADIAL", vector[:2], vector[2:4], vector[4:6], vector[6:]).to(dtype)
    query, reference = part["C_q"], part["C_ref"][:, 0]
    features = part["F_q"]
    if run == 2:
        features = whole_map(features, data["L0_F_q_stored"])
    if not confident:
        query, reference = torch.ones_like(query), torch.ones_like(reference)
    system = LevelSystem(
        level_of(features, query),
        camera,
        data["p3d"].to(dtype),
        part["F_ref"],
        reference,
        REFERENCE.robust,
        REFERENCE.sampling,
    )
    return system, part["lambda"]


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("conf", torch.float32, FLOAT32_STEP),
        ("noconf", torch.float32, FLOAT32_STEP),
        ("f64conf", torch.float64, FLOAT64_STEP),
    ],
)
@pytest.mark.parametrize("run", [0, 1, 2])
def test_every_iteration_of_a_level(parity: Path, run: int, name, dtype, tolerance) -> None:
    system, damping = field(parity, run, dtype, confident=name != "noconf")
    data = tensors(parity / "optim_field.npz")
    known = {k.removeprefix(f"{name}_run{run}_"): v for k, v in data.items() if k.startswith(name)}
    pose = pose_of(known["T0"])[None]
    close = {"rtol": tolerance, "atol": tolerance}
    for i in range(11):
        at = system.linearize(pose)
        seen = ~at.squared[0].isnan()
        assert int(at.in_view[0]) == int(known["nvalid"][i])
        cost = Barron(0, 0.1).cost(at.squared[0, seen]).mean()
        torch.testing.assert_close(cost, known["cost_mean"][i], **close)
        for found, expected in ((at.gradient, known["g"]), (at.hessian, known["H"])):
            scale = expected.abs().max()  # of all iterations: the gradient goes to zero
            torch.testing.assert_close(found[0] / scale, expected[i] / scale, **close)
        result = minimize(system, pose, damping, 1, REFERENCE)
        torch.testing.assert_close(numbers_of(result.T_cam_local)[0], known["T"][i], **close)
        pose = pose_of(known["T"][i])[None]


@pytest.mark.parametrize("run", [0, 1, 2])
def test_weights_and_jacobians_of_the_points(parity: Path, run: int) -> None:
    system, _ = field(parity, run, torch.float32, confident=True)
    data = tensors(parity / "optim_field.npz")
    known = {k.removeprefix(f"conf_run{run}_"): v for k, v in data.items()}
    pose = pose_of(known["T0"])[None]
    at, seen = system.linearize(pose)[0], known["valid0"]
    close = {"rtol": 0, "atol": FLOAT32_STEP}
    torch.testing.assert_close(~at.squared.isnan(), seen)
    weight = REFERENCE.robust.weight(at.squared)
    torch.testing.assert_close(weight[seen], known["w_loss0"][seen], **close)
    read = system.sampling.read(system.level, at.pixels)
    confidence = read[:, 0, -1] * system.confidence
    torch.testing.assert_close(confidence[seen], known["w_unc0"][seen], **close)
    points_cam = pose.transform(system.points)[0]
    J_pixel = through_transform(system.camera.project_with_jacobian(points_cam)[2], points_cam)
    J = read[:, 1:, :-1].mT @ J_pixel
    scale, some = known["J0"].abs().max(), seen[::8]
    torch.testing.assert_close(J[::8][some] / scale, known["J0"][some] / scale, **close)


@pytest.mark.parametrize("run", [0, 1, 2])
def test_a_level_stops_where_the_reference_stopped(parity: Path, run: int) -> None:
    system, damping = field(parity, run, torch.float64, confident=True)
    data = tensors(parity / "optim_field.npz")
    start = pose_of(data[f"f64conf_run{run}_T0"])[None]
    result = minimize(system, start, damping, REFERENCE.iterations[run], REFERENCE)
    assert result.converged.all() and not result.failed.any()
    assert int(result.iterations[0]) == 11
    last = data[f"f64conf_run{run}_T"][-1]
    torch.testing.assert_close(numbers_of(result.T_cam_local)[0], last, rtol=0, atol=FLOAT64_STEP)


def test_a_camera_that_looks_away_fails_where_it_is(parity: Path) -> None:
    data = tensors(parity / "optim_fail.npz")
    system, damping = field(parity, 2, torch.float32, confident=True)
    start = pose_of(data["T_init"].float())[None]
    result = minimize(system, start, damping, 100, REFERENCE)
    assert result.failed.all() == data["failed"]
    assert int(system.linearize(start).in_view[0]) == int(data["nvalid"][0])
    assert torch.equal(numbers_of(result.T_cam_local)[0], data["T_out"])


def test_a_level_that_loses_its_points_goes_back_to_its_start(parity: Path) -> None:
    """The first start loses its points on the way, the second one finds the pose."""
    system, damping = field(parity, 0, torch.float64, confident=True)
    known = tensors(parity / "optim_field.npz")["f64conf_run0_T0"]
    away = torch.tensor([[-3.783, -2.181, -0.060, 0.084, 0.071, -0.332], [0.0] * 6]).to(known)
    start = pose_of(known.expand(2, 12)).retract(away)
    assert (system.linearize(start).in_view >= REFERENCE.min_points).all()
    result = minimize(system, start, damping, REFERENCE.iterations[0], REFERENCE)
    assert result.failed.tolist() == [True, False]
    assert result.iterations[0] > 0
    assert torch.isinf(result.cost[0])
    assert torch.equal(result.T_cam_local.t[0], start.t[0])
    assert torch.equal(result.T_cam_local.R[0], start.R[0])
