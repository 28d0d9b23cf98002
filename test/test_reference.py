"""Reference mode against the outputs of the reference implementation, number by number."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixloc_ros.alignment.lm import damped_step, minimize
from pixloc_ros.alignment.policy import REFERENCE
from pixloc_ros.alignment.robust import Barron, Huber, RobustCost
from pixloc_ros.alignment.sampling import Sampling, central, cubic, separable
from pixloc_ros.alignment.system import LevelSystem
from pixloc_ros.config import AlignmentConfig
from pixloc_ros.errors import WeightsError
from pixloc_ros.features import compact, weights
from pixloc_ros.features.official import read_checkpoint
from pixloc_ros.features.pyramid import FeatureExtractor, FeatureLevel
from pixloc_ros.features.vgg import VggNet, vgg16, vgg19
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.training.unrolled import View, pose_loss, pyramids, refine

CONFIG = AlignmentConfig(policy="reference")
System = tuple[LevelSystem, torch.Tensor]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in np.load(path).items()}


def level_of(features: torch.Tensor, confidence: torch.Tensor | None = None) -> FeatureLevel:
    """A level from maps (C, H, W) and (1, H, W)."""
    if confidence is None:
        confidence = torch.ones_like(features[:1])
    rows = torch.cat([features, confidence]).permute(1, 2, 0).flatten(0, 1)
    return FeatureLevel(rows, *features.shape[1:], stride=1, image_size=torch.zeros(2))


def pose_of(numbers: torch.Tensor) -> Pose:
    """From the 12 numbers of the reference."""
    return Pose(numbers[..., :9].unflatten(-1, (3, 3)), numbers[..., 9:])


def numbers_of(pose: Pose) -> torch.Tensor:
    return torch.cat([pose.R.flatten(-2), pose.t], -1)


# --- the parts ---


@pytest.mark.parametrize(("name", "kernel", "extra"), [("linear", central, 0), ("cubic", cubic, 1)])
def test_interpolation(parity: Path, name: str, kernel, extra: int) -> None:
    data = tensors(parity / "interp.npz")
    level, pixels = level_of(data["F"]), data["pts"]
    for pad in (1, 2, 4):
        sampling = Sampling(separable(kernel), taps=4, border_px=pad + extra)
        mask = sampling.inside(level, pixels)
        torch.testing.assert_close(mask, data[f"{name}_mask_pad{pad}"])
        value, *slopes = sampling.read(level, pixels[mask])[..., :-1].unbind(-2)
        torch.testing.assert_close(value, data[f"{name}_val"][mask], atol=1e-5, rtol=0)
        gradient = torch.stack(slopes, -1)
        torch.testing.assert_close(gradient, data[f"{name}_grad"][mask], atol=1e-5, rtol=0)


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
        return compact.unpack(packed)[0].flatten()

    for x, J in zip(data["Jn_x"], data["Jn"], strict=True):
        numeric = torch.autograd.functional.jacobian(unit, x)
        torch.testing.assert_close(numeric, J, atol=1e-10, rtol=0)


def test_the_damped_step(parity: Path) -> None:
    """All four systems: one of them is rank deficient, one has no rows at all."""
    data = tensors(parity / "lmstep.npz")
    damping = compact.damping(data["theta"])
    torch.testing.assert_close(damping, data["lam"], rtol=1e-5, atol=0)
    usable = data["mask"][:, None]
    H = torch.where(usable[..., None], data["H"], torch.eye(6))
    g = torch.where(usable, data["g"], 0)
    step = damped_step(H, g, damping, REFERENCE)
    torch.testing.assert_close(step, data["delta"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(numbers_of(Pose.exp(step)), data["T_delta"], rtol=1e-4, atol=1e-6)
    moved = pose_of(data["T0"]).retract(step)
    torch.testing.assert_close(numbers_of(moved), data["T_new"], rtol=1e-4, atol=1e-6)
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
    if not confident:
        query, reference = torch.ones_like(query), torch.ones_like(reference)
    system = LevelSystem(
        level_of(part["F_q"], query),
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
        ("conf", torch.float32, 1e-4),
        ("noconf", torch.float32, 1e-4),
        ("f64conf", torch.float64, 1e-8),
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
        assert int(at.seen[0]) == int(known["nvalid"][i])
        cost = Barron(0, 0.1).cost(at.squared[0, seen]).mean()
        torch.testing.assert_close(cost, known["cost_mean"][i], **close)
        for found, expected in ((at.gradient, known["g"]), (at.hessian, known["H"])):
            scale = expected.abs().max()  # of all iterations: the gradient goes to zero
            torch.testing.assert_close(found[0] / scale, expected[i] / scale, **close)
        result = minimize(system, pose, damping, 1, CONFIG)
        torch.testing.assert_close(numbers_of(result.T_cam_local)[0], known["T"][i], **close)
        pose = pose_of(known["T"][i])[None]


@pytest.mark.parametrize("run", [0, 1, 2])
def test_a_level_stops_where_the_reference_stopped(parity: Path, run: int) -> None:
    system, damping = field(parity, run, torch.float64, confident=True)
    data = tensors(parity / "optim_field.npz")
    start = pose_of(data[f"f64conf_run{run}_T0"])[None]
    result = minimize(system, start, damping, REFERENCE.iterations[run], CONFIG)
    assert result.converged.all() and not result.failed.any()
    assert int(result.iterations[0]) == 11
    last = data[f"f64conf_run{run}_T"][-1]
    torch.testing.assert_close(numbers_of(result.T_cam_local)[0], last, rtol=1e-8, atol=1e-8)


def test_a_camera_that_looks_away_fails_where_it_is(parity: Path) -> None:
    data = tensors(parity / "optim_fail.npz")
    system, damping = field(parity, 2, torch.float32, confident=True)
    start = pose_of(data["T_init"].float())[None]
    result = minimize(system, start, damping, 100, CONFIG)
    assert result.failed.all() == data["failed"]
    assert int(system.linearize(start).seen[0]) == int(data["nvalid"][0])
    assert torch.equal(numbers_of(result.T_cam_local)[0], data["T_out"])


# --- the networks ---


def recipe(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights that the known outputs were made with: from the tensor's name alone."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1000)
    if name.endswith("dampingnet.const"):
        value = 0.5 * noise - 1.5
    elif name.endswith("running_mean"):
        value = 0.1 * noise
    elif name.endswith("running_var"):
        value = np.exp(0.2 * noise)
    elif name.endswith("bias"):
        value = 0.05 * noise
    elif len(shape) == 1:
        value = 1 + 0.1 * noise
    else:
        gain = 1 if shape[-1] == 1 else 2
        value = noise * np.sqrt(gain / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, np.float32))


def write_checkpoint(path: Path, network: VggNet) -> Path:
    """A file laid out like the official ones."""
    state = {k: recipe(k, tuple(v.shape)) for k, v in network.state_dict().items()}
    results = {"loss/total": np.float64(0.25), "count": np.int64(3), "best": np.float32(1.5)}
    content = {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5, "params": [0]}]},
        "lr_scheduler": {"last_epoch": 7},
        "conf": {"data": {"name": "megadepth"}, "model": {"name": "two_view_refiner"}, "train": {}},
        "epoch": 7,
        "losses": {"total": 0.3},
        "eval": results,
    }
    torch.save(content, path)
    return path


@pytest.fixture(
    scope="module", params=[("megadepth", vgg19), ("cmu", vgg16)], ids=["vgg19", "vgg16"]
)
def official(request, parity: Path, tmp_path_factory) -> tuple[FeatureExtractor, dict]:
    """An extractor that has loaded a checkpoint, and the outputs of the reference with it."""
    name, make = request.param
    path = write_checkpoint(tmp_path_factory.mktemp(name) / "checkpoint_best.tar", make())
    return FeatureExtractor(str(path)), tensors(parity / f"unet_pixloc_{name}_small.npz")


@pytest.mark.slow
def test_the_network_of_a_checkpoint(official: tuple[FeatureExtractor, dict]) -> None:
    extractor, known = official
    assert (extractor.strides, extractor.dims) == ((16, 4, 1), (128, 128, 32))
    torch.testing.assert_close(extractor.damping, known["lambda"].flip(0), rtol=1e-5, atol=0)
    pyramid = extractor.extract(known["image_u8"].numpy())
    for level, n, step in zip(pyramid.levels, (2, 1, 0), (1, 4, 8), strict=True):
        raw, confidence = maps_of(level, step)
        std = known[f"std{n}"]
        torch.testing.assert_close(raw / std, known[f"feat{n}_s{step}"] / std, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(confidence, known[f"conf{n}_s{step}"], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_network_drops_odd_rows_and_columns(official: tuple[FeatureExtractor, dict]) -> None:
    extractor, known = official
    pyramid = extractor.extract(known["image_u8"].numpy()[:187, :251])
    for level, n, step in zip(pyramid.levels, (2, 1, 0), (1, 8, 8), strict=True):
        assert [level.height, level.width] == known[f"odd_shape{n}"].tolist()[2:]
        raw, confidence = maps_of(level, step)
        std = known[f"std{n}"]
        torch.testing.assert_close(raw / std, known[f"odd_sample{n}"] / std, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(confidence, known[f"odd_conf_sample{n}"], atol=1e-5, rtol=0)
        # What the map has lost is not in view.
        camera = Camera.create("PINHOLE", (251, 187), (100, 100), (125, 93))
        assert pyramid.camera(camera, level).size.tolist() <= [level.width, level.height]
    assert not pyramid.sample(torch.tensor([[100.0, 180.0]]))[-1][2].any()


@pytest.mark.slow
def test_references_are_sampled_before_they_are_normalised(official) -> None:
    extractor, known = official
    pyramid = extractor.extract(known["image_u8"].numpy())
    pixels = torch.tensor([[40.3, 77.9], [101.5, 20.25]])
    for level, (features, confidence, valid) in zip(
        pyramid.levels, pyramid.sample(pixels), strict=True
    ):
        raw, confidences = maps_of(level, 1)
        at = (pixels + 0.5) / level.stride - 0.5
        grid = 2 * at / torch.tensor([level.width - 1, level.height - 1]) - 1
        expected = [
            F.grid_sample(m, grid[None, None], align_corners=True)[0, :, 0].T
            for m in (raw, confidences)
        ]
        assert valid.all()
        torch.testing.assert_close(features, F.normalize(expected[0], dim=-1), atol=1e-5, rtol=0)
        torch.testing.assert_close(confidence, expected[1][:, 0], atol=1e-5, rtol=0)


def small_checkpoint(path: Path, **changes: object) -> Path:
    torch.save({"model": {"extractor.encoder.0.0.bias": torch.zeros(64)}} | changes, path)
    return path


def test_a_checkpoint_of_another_network_lists_what_differs(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "checkpoint_best.tar", eval={"loss": np.float64(1.0)})
    with pytest.raises(WeightsError, match=r"next is vgg\d+: 6\d missing \(extractor\.") as caught:
        weights.load(str(path))
    assert "\n" not in str(caught.value)
    state = {"extractor.encoder.0.0.bias": torch.zeros(64), "head.weight": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"1 unknown \(head\.weight\)"):
        weights.load(str(small_checkpoint(path, model=state)))


def test_checkpoints_written_with_numpy_1_are_read(tmp_path: Path) -> None:
    """numpy 2 has moved the function that its numbers name in a pickle."""
    new, old = (
        small_checkpoint(tmp_path / "new.tar", eval={"loss": np.float64(1.0)}),
        tmp_path / "o",
    )
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(b"numpy._core.multi", b"numpy.core.multi"))
    assert read_checkpoint(old).keys() == read_checkpoint(new).keys()


@pytest.mark.parametrize("kind", ["code", "truncated", "text", "list", "numbers"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, kind: str) -> None:
    path = small_checkpoint(tmp_path / "checkpoint_best.tar")
    if kind == "code":
        small_checkpoint(path, eval=zlib.crc32)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "list":
        torch.save([1, 2], path)
    else:
        torch.save({"model": {"epoch": 3}}, path)
    with pytest.raises(WeightsError, match=r"checkpoint_best\.tar") as caught:
        weights.load(str(path))
    assert "\n" not in str(caught.value)


def maps_of(level: FeatureLevel, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw features (1, C, h, w) and confidence (1, 1, h, w), every `step` pixels."""
    rows = torch.cat([level.rows[:, :-1] * level.norms[:, None], level.rows[:, -1:]], -1)
    maps = rows.view(level.height, level.width, -1)[::step, ::step].permute(2, 0, 1)[None]
    return maps[:, :-1], maps[:, -1:]


# --- one step of training ---


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("name", "tolerance"), [("f64", 1e-6), ("f32", 1e-3)])
def test_losses_and_gradients_of_a_training_step(
    parity: Path, name: str, tolerance: float, mode: str
) -> None:
    data = tensors(parity / "train_step.npz")
    known = {k.removeprefix(f"{name}_{mode}_"): v for k, v in data.items() if k.startswith(name)}
    network = vgg19()
    network.load_state_dict({k: recipe(k, tuple(v.shape)) for k, v in network.state_dict().items()})
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
    # In float32 the reference itself is this far from its float64.
    atol = max(tolerance, 2e-3) if damping.dtype == torch.float32 else tolerance
    torch.testing.assert_close(damping / scale, known["grad_damping"] / scale, rtol=0, atol=atol)
    norm = torch.stack([g.double().norm() for g in gradients.values()]).norm()
    torch.testing.assert_close(norm, known["grad_norm_total"], rtol=tolerance, atol=0)
