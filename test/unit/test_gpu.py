"""The kernels give what plain torch gives; pixloc_ros/alignment/cuda/README.md has the table.

Without a GPU they run in Triton's interpreter.

On a machine with one: TRITON_INTERPRET=0 python -m pytest test/unit/test_gpu.py
"""

import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.alignment import (
    CAMERA,
    DAMPING,
    OFFSET,
    PLANE,
    STRIDES,
    noisy,
    poses_of,
    scene,
    system_of,
    with_further,
)
from helpers.wall import CAMERA as WALL_CAMERA
from helpers.wall import write_dataset
from pixloc_ros.alignment.coarse_to_fine import Aligner, Stage
from pixloc_ros.alignment.cuda import fused_aligner as fused_aligner_module
from pixloc_ros.alignment.cuda.fused_aligner import FusedAligner, fused_aligner
from pixloc_ros.alignment.cuda.schedule import CHUNK_TILES, LevelBuffers, PoseBuffers
from pixloc_ros.alignment.levenberg_marquardt import damped_step, minimize
from pixloc_ros.alignment.policy import Policy
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.config import AlignmentConfig, HypothesesConfig, from_flat
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import diagonal, perturb_base
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.build.builder import build_map
from pixloc_ros.maps.build.sources import ColmapSource
from pixloc_ros.maps.files.posed_images import read_image
from pixloc_ros.maps.map import Map
from pixloc_ros.maps.view import MapView
from pixloc_ros.types import Alignment, Frame, PosePrior, Reason, Status

pytestmark = pytest.mark.slow

pytest.importorskip("triton", reason="the kernels need triton: pip install pixloc_ros[gpu]")

INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
CONFIG = AlignmentConfig(iterations=(4, 4, 6))
FEW = HypothesesConfig(screening_iterations=2, screening_points=50, keep_screened=3, keep_coarse=2)
SIZE = (320, 192)
CAMERAS = {
    "PINHOLE": CAMERA,
    "RADIAL": Camera.create("RADIAL", SIZE, (200, 210), (159.5, 95.5), (-0.1, 0.01)),
    "FULL_OPENCV": Camera.create(
        "FULL_OPENCV",
        SIZE,
        (200, 200),
        (150.5, 99.5),
        (-0.1, 0.02, 1e-3, -2e-3, 0.01, 0.02, 0.01, 1e-3),
    ),
    "OPENCV_FISHEYE": Camera.create(
        "OPENCV_FISHEYE", SIZE, (120, 120), (155.5, 97.5), (0.02, -0.01, 3e-3, -1e-3)
    ),
}


def on_device(
    system: LevelSystem,
    poses: Pose,
    stage: Stage | None = None,
    policy: Policy | None = None,
    places: int = 0,
) -> LevelBuffers:
    """The problem, loaded and started."""
    room = PoseBuffers(places or len(poses.t), DEVICE)
    stage = stage or Stage(2, 0, len(poses.t))
    policy = policy or Policy.of(CONFIG)
    problem = LevelBuffers(stage, system, room, DAMPING.to(DEVICE), policy, FEW)
    problem.load(system)
    room.start(poses)
    return problem


def as_stored(system: LevelSystem) -> LevelSystem:
    """The system with its features rounded as the kernels' maps are."""
    rows = system.level.rows.half().float()
    return replace(
        system,
        level=replace(system.level, rows=rows),
        reference=system.reference.half().float(),
    )


def sums_of(problem: LevelBuffers, points: int) -> torch.Tensor:
    return problem.sums[:, : -(-points // problem.block)].sum(1).cpu()


def assert_same_sums(problem: LevelBuffers, system: LevelSystem, poses: Pose, rtol: float) -> None:
    total, at = sums_of(problem, len(system.points)), system.linearize(poses)
    # A gradient is as exact as the terms that it sums up: they cancel at the solution.
    unit = at.hessian.diagonal(dim1=-2, dim2=-1).sqrt()
    outer = unit[:, :, None] * unit[:, None, :]
    close = {"rtol": rtol, "atol": rtol}
    torch.testing.assert_close(total[:, :6, :6] / outer, at.hessian / outer, **close)
    torch.testing.assert_close(total[:, 6, :6] / unit, at.gradient / unit, **close)
    torch.testing.assert_close(total[:, 7, 0] / total[:, 7, 4], at.cost, **close)
    assert total[:, 7, 1].int().tolist() == at.in_view.tolist()


def align(fused: FusedAligner | None, view: MapView, poses: Pose, config=CONFIG) -> Alignment:
    pyramid = scene(1)[0]
    observation = CameraObservation(pyramid, CAMERA.to(torch.float32), view)
    return Aligner(DAMPING, config, FEW, fused).align([observation], poses)


def fused(**limits: int) -> FusedAligner:
    return FusedAligner(DAMPING.to(DEVICE), **limits)


@pytest.mark.parametrize("model", CAMERAS)
@pytest.mark.parametrize("level", [0, 2])
def test_normal_equations(model: str, level: int) -> None:
    system = as_stored(system_of(level, confidence=torch.linspace(0, 1, 500)))
    camera = CAMERAS[model].scale(1 / STRIDES[level]).to(torch.float32)
    system = replace(system, camera=camera)
    poses = poses_of([0.01] * 6, OFFSET)
    problem = on_device(system, poses)
    problem.linearize(problem.now)
    assert_same_sums(problem, system, poses, rtol=1e-4)


def test_normal_equations_of_a_fisheye_that_sees_sideways() -> None:
    """From 1 m before the plane, with a point on the optical axis and angles up to 80 degrees."""
    system = as_stored(system_of())
    on_axis = torch.tensor([[0.0, 0.0, float(PLANE[3])]])
    system = replace(
        system,
        points=torch.cat([on_axis, system.points[1:]]),
        camera=CAMERAS["OPENCV_FISHEYE"].scale(1 / STRIDES[2]).to(torch.float32),
    )
    poses = poses_of([0, 0, 1.0 - float(PLANE[3]), 0, 0, 0])
    problem = on_device(system, poses)
    problem.linearize(problem.now)
    assert_same_sums(problem, system, poses, rtol=1e-4)
    points_cam = poses.transform(system.points)[0]
    seen = system.linearize(poses).pixels[0].isfinite().all(-1)
    angle = torch.atan2(points_cam[:, :2].norm(dim=-1), points_cam[:, 2]).rad2deg()
    assert seen[0] and angle[0] == 0
    assert angle[seen].max() > 70


@pytest.mark.parametrize("model", ["PINHOLE", "FULL_OPENCV", "OPENCV_FISHEYE"])
def test_normal_equations_of_a_rolling_shutter(model: str) -> None:
    motion = se3.make(Pose.exp(torch.tensor([0, 0, 0, 0.003, 0.03, 0.0])).R, [0.01, 0.0, 0.45])
    camera = CAMERAS[model].rolling(motion, 0.0).scale(1 / STRIDES[2]).to(torch.float32)
    system, poses = replace(as_stored(system_of()), camera=camera), poses_of([0.01] * 6, OFFSET)
    problem = on_device(system, poses)
    problem.linearize(problem.now)
    assert_same_sums(problem, system, poses, rtol=1e-4)
    still = replace(system, camera=replace(camera, shutter=None)).linearize(poses)
    assert (still.pixels - system.linearize(poses).pixels).abs().max() > 2


def test_half_precision_costs_less_than_a_thousandth() -> None:
    system = system_of()
    problem = on_device(system, poses_of(OFFSET))
    problem.linearize(problem.now)
    assert_same_sums(problem, system, poses_of(OFFSET), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_points_that_cannot_be_seen_add_nothing() -> None:
    """Not finite, behind the camera, or beside the image: only the others count."""
    hidden = torch.tensor(
        [[torch.nan, 0, 8], [0, torch.inf, 8], [0, 0, -8], [0, 0, 0], [90, 0, 8]]
    ).float()
    system = as_stored(system_of())
    both = replace(
        system,
        points=torch.cat([hidden, system.points]),
        reference=torch.cat([system.reference[:5], system.reference]),
        confidence=torch.cat([torch.ones(5), system.confidence]),
    )
    with_hidden, without = on_device(both, poses_of(OFFSET)), on_device(system, poses_of(OFFSET))
    for problem in (with_hidden, without):
        problem.linearize(problem.now)
    sums, expected = sums_of(with_hidden, 505)[0], sums_of(without, 500)[0]
    torch.testing.assert_close(sums[:7], expected[:7], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(sums[7, :2], expected[7, :2] + torch.tensor([5.0, 0]))


def test_what_is_emitted_per_point() -> None:
    system = as_stored(system_of())
    problem = on_device(system, poses_of(OFFSET))
    problem.linearize(problem.now, emit=True)
    at = system.linearize(poses_of(OFFSET))[0]
    seen = at.squared.isfinite()
    squared = problem.squared[:500].cpu()
    torch.testing.assert_close(squared, at.squared, rtol=1e-4, atol=1e-4, equal_nan=True)
    torch.testing.assert_close(
        problem.gradients[:500, :6].cpu()[seen], at.point_gradients[seen], rtol=1e-3, atol=1e-2
    )
    torch.testing.assert_close(
        problem.pixels[1, 0, :500].cpu()[seen], at.pixels[seen], rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("longest_m", [5.0, 0.01])
def test_one_step(longest_m: float) -> None:
    config = AlignmentConfig(max_step_m=longest_m)
    system, poses = as_stored(system_of()), poses_of([0.02] * 6, OFFSET)
    problem = on_device(system, poses, policy=Policy.of(config))
    problem.linearize(problem.now)
    problem.step()
    at = system.linearize(poses)
    twist = damped_step(at.hessian, at.gradient, DAMPING[2], Policy.of(config))
    assert (twist[:, :3].norm(dim=-1) <= longest_m * (1 + 1e-6)).all()
    expected = poses.retract(twist).matrix()
    torch.testing.assert_close(problem.now.T.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_more_tiles_than_are_added_at_once() -> None:
    """Each point five times: the same step."""
    once = as_stored(system_of())
    parts = {name: getattr(once, name) for name in ("points", "reference", "confidence")}
    often = replace(once, **{name: torch.cat([part] * 5) for name, part in parts.items()})
    problems = on_device(once, poses_of(OFFSET)), on_device(often, poses_of(OFFSET))
    for problem in problems:
        problem.linearize(problem.now)
        problem.step()
    assert problems[1].tiles > CHUNK_TILES
    torch.testing.assert_close(problems[0].now.T, problems[1].now.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(problems[0].now.state, problems[1].now.state)


def test_no_step_where_the_system_is_singular() -> None:
    """Zero confidence everywhere: the damping's floor alone solves it, and nothing moves."""
    problem = on_device(system_of(confidence=torch.zeros(500)), poses_of(OFFSET))
    problem.linearize(problem.now)
    problem.step()
    torch.testing.assert_close(problem.now.T.cpu(), poses_of(OFFSET).matrix())
    assert problem.now.state[0, :6].tolist() == [0, 0, 1, 0, 0, 1]


def test_whole_minimisation_with_frozen_problems() -> None:
    away = [0, 0, 0, 0, 3.0, 0]
    poses = poses_of(OFFSET, away, [0.05] * 6)
    system = system_of(count=100)
    problem = on_device(system, poses, Stage(2, 8, 3))
    problem.solve()
    expected = minimize(system, poses, DAMPING[2], 8, Policy.of(CONFIG))
    state, best = problem.now.state.cpu(), problem.best_T.cpu()
    torch.testing.assert_close(best, expected.T_cam_local.matrix(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(state[:, 0], expected.cost, rtol=1e-3, atol=1e-4)
    assert state[:, 1].tolist() == expected.iterations.tolist()
    assert state[:, 3].bool().tolist() == expected.converged.tolist()
    assert state[:, 4].bool().tolist() == expected.failed.tolist() == [False, True, False]
    assert problem.result[:, 0].tolist() == sorted(state[:, 0].tolist())


def test_pruning_keeps_the_best_distinct_poses() -> None:
    """Poses 0, 1 and 3 are one, 4 is turned, 2 failed, and the sixth place is empty."""
    poses = poses_of(
        [0.0] * 6, [0.1] + [0] * 5, [9.0] + [0] * 5, [0, 0.2] + [0] * 4, [0] * 5 + [0.1]
    )
    problem = on_device(system_of(), poses, Stage(2, 0, 4), places=6)
    problem.best_T.copy_(problem.now.T)
    problem.now.state[:5, 0] = torch.tensor([0.3, 0.1, torch.inf, 0.2, 0.2])
    problem.best_distinct()
    result = problem.result.cpu()
    assert result[:, 5].tolist() == [1, 1, 1, 0]  # the fourth does not exist
    torch.testing.assert_close(result[:3, 0], torch.tensor([0.1, 0.2, torch.inf]))
    torch.testing.assert_close(
        result[:3, 8:].view(3, 4, 4), poses.matrix()[[1, 4, 2]], rtol=0, atol=1e-6
    )
    torch.testing.assert_close(problem.next.T[:3].cpu(), poses.matrix()[[1, 4, 2]])
    assert problem.next.state[:, 2].tolist() == [1, 1, 1, 0]  # active


def test_pruning_gives_up_poses_that_agree_too_little() -> None:
    """1 - cost: 0.9, and 0.7 of that, is more than the 0.5 of the third."""
    poses = poses_of([0.0] * 6, [9.0] + [0] * 5, [0, 9.0] + [0] * 4)
    problem = on_device(system_of(), poses, Stage(1, 0, 3, min_agreement_share=0.7))
    problem.best_T.copy_(problem.now.T)
    problem.now.state[:3, 0] = torch.tensor([0.3, 0.1, 0.5])
    problem.best_distinct()
    assert problem.result[:, 5].tolist() == [1, 1, 0]
    torch.testing.assert_close(problem.result[:2, 0].cpu(), torch.tensor([0.1, 0.3]))


@pytest.mark.parametrize("count", [1, 5])
def test_the_whole_alignment(count: int) -> None:
    view = scene(120)[1]
    poses = poses_of(OFFSET, [3.0, 1, 0, 0, 0.4, 0], [0] * 4 + [3, 0], [0.1] * 6, OFFSET)[:count]
    found, expected = align(fused(), view, poses), align(None, view, poses)
    np.testing.assert_allclose(found.T_map_cam, expected.T_map_cam, atol=1e-3)
    np.testing.assert_allclose(found.hessian, expected.hessian, rtol=1e-2, atol=1e-1)
    np.testing.assert_allclose(found.cost_per_level, expected.cost_per_level, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.pixels, expected.pixels, atol=0.05)
    np.testing.assert_allclose(found.runner_up_cost, expected.runner_up_cost, rtol=1e-3)
    assert found.iterations == expected.iterations
    assert found.converged == expected.converged
    assert found.hypotheses == count and found.hypotheses_dropped == 0


def test_the_step_that_refines_an_accepted_pose() -> None:
    pyramid, view = scene(120)
    view = with_further(noisy(view, 0), noisy(view, 1))
    observations = [CameraObservation(pyramid, CAMERA.to(torch.float32), view)]
    found = poses_of([0.02, -0.01, 0.02, 0, 0.001, 0])
    refined, at = Aligner(DAMPING, CONFIG, FEW, fused()).step_on_fine_level(observations, found)
    expected, before = Aligner(DAMPING, CONFIG, FEW).step_on_fine_level(observations, found)
    assert (expected.t - found.t).norm() > 0.01
    torch.testing.assert_close(refined.matrix().cpu(), expected.matrix(), rtol=0, atol=1e-3)
    assert at.point_gradients.shape == before.point_gradients.shape == (240, 6)


def test_buffers_are_used_again_without_traces() -> None:
    """Fewer points after more, in the same rounded size: as if they came first; and bit by bit."""
    aligner, fewer = fused(), scene(60)[1]
    short = AlignmentConfig(iterations=(1, 1, 2))
    align(aligner, scene(120)[1], poses_of(OFFSET), short)
    second, first = (align(each, fewer, poses_of(OFFSET), short) for each in (aligner, fused()))
    np.testing.assert_array_equal(second.T_map_cam, first.T_map_cam)
    np.testing.assert_array_equal(second.residuals, first.residuals)
    np.testing.assert_array_equal(second.covariance_cam, first.covariance_cam)


@pytest.mark.parametrize("kind", ["behind", "nan", "zero"])
def test_hopeless_alignments_end_quietly(kind: str) -> None:
    view = scene(64)[1]
    if kind == "zero":
        view = replace(view, confidences=(torch.zeros(64),) * 3)
    else:
        view.points[:, 2] = torch.nan if kind == "nan" else -5.0
    found = align(fused(), view, poses_of(OFFSET, [0.0] * 6), AlignmentConfig(iterations=(1, 1, 1)))
    assert np.isfinite(found.T_map_cam).all()
    assert found.cost == (0 if kind == "zero" else np.inf)
    assert not np.isfinite(found.covariance_cam).all() or kind == "zero"


def test_memory_for_some_hypotheses_only() -> None:
    view, poses = scene(60)[1], poses_of(OFFSET, *[[0.1 * i] * 6 for i in range(5)])
    found = align(fused(budget_bytes=50_000), view, poses)
    assert found.hypotheses + found.hypotheses_dropped == 6
    assert 1 <= found.hypotheses < 6
    np.testing.assert_allclose(found.T_map_cam[:3, 3], 0, atol=0.05)  # the first one is there


def test_memory_for_no_hypothesis() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        align(fused(budget_bytes=100), scene(60)[1], poses_of(OFFSET))


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> tuple[Map, Frame, PosePrior]:
    """A map of a textured wall, a frame that it was built from, and a prior of 10 cm."""
    folder = tmp_path_factory.mktemp("wall")
    write_dataset(folder, np.zeros(3))
    source = ColmapSource(model_dir=folder / "colmap", images=folder / "images")
    map_ = build_map(source, folder / "map")
    truth = map_.keyframe_T_map_cam[2]
    image = read_image(folder / "images" / "drive 1" / "002.png", WALL_CAMERA)
    error = np.array([0.05, 0.03, -0.1, 0.005, 0.01, -0.005])
    prior = PosePrior(perturb_base(truth, error), diagonal(0.1, 1.0), "file", 0)
    return map_, Frame(image, WALL_CAMERA, 0, np.eye(4)), prior


def test_a_frame_is_localized_as_on_the_cpu(wall: tuple[Map, Frame, PosePrior]) -> None:
    map_, frame, prior = wall
    config = from_flat({"view.max_points": 120, "alignment.iterations": (3, 3, 8)})
    plain, with_kernels = Localizer(config, map_), Localizer(config, map_)
    use_kernels(with_kernels)
    expected, found = plain.localize(frame, prior), with_kernels.localize(frame, prior)
    assert (found.status, found.reason) == (expected.status, expected.reason)
    assert se3.distance_m(found.candidate_T_map_base, expected.candidate_T_map_base) < 1e-3
    assert se3.angle_deg(found.candidate_T_map_base, expected.candidate_T_map_base) < 0.01


def test_memory_that_does_not_suffice_is_told(wall: tuple[Map, Frame, PosePrior]) -> None:
    map_, frame, prior = wall
    vague = replace(prior, covariance=diagonal(3.0, 6.0))
    config = from_flat(
        {
            "view.max_points": 120,
            "alignment.iterations": (1, 1, 1),
            "hypotheses.screening_iterations": 1,
        }
    )
    localizer = Localizer(config, map_)
    use_kernels(localizer, budget_bytes=20_000)
    some = localizer.localize(frame, vague)
    assert some.alignment.hypotheses > 0
    assert some.alignment.hypotheses_dropped > 100
    assert f"no memory for {some.alignment.hypotheses_dropped} more initial poses" in some.message
    use_kernels(localizer, budget_bytes=100)
    none = localizer.localize(frame, vague)
    assert (none.status, none.reason) == (Status.FAILED, Reason.OUT_OF_MEMORY)


def use_kernels(localizer: Localizer, **limits: int) -> None:
    localizer.kernels = FusedAligner(localizer.features.damping.to(DEVICE), **limits)


def test_the_table_of_kernels_and_torch_names_what_there_is() -> None:
    table = (Path(fused_aligner_module.__file__).parent / "README.md").read_text()
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) >= 8
    for kernel, torch_side, test in rows:
        for path in re.findall(r"`([\w./]+\.py):(\w+(?:\.\w+)?)`", kernel + torch_side):
            assert hasattr(*owner_of(*path)), path
        for name in re.findall(r"`(\w+)`", test):
            assert name in globals(), name


def owner_of(file: str, name: str) -> tuple[Any, str]:
    """The module or class that has a name, and the last part of that name."""
    module = import_module("pixloc_ros." + file.removesuffix(".py").replace("/", "."))
    *classes, last = name.split(".")
    return (getattr(module, classes[0]) if classes else module), last


def test_where_the_kernels_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    assert fused_aligner(DAMPING) is None  # on the CPU
    ours, reference = (Policy.of(AlignmentConfig(policy=p)) for p in ("pixloc_ros", "reference"))
    kernels = fused()
    assert kernels.supports(ours)
    assert not caplog.text
    assert not kernels.supports(reference)
    assert "policy 'reference'" in caplog.text


def test_kernels_compile_for_an_h200_without_spilling() -> None:
    """Needs no GPU; in a process of its own, as this one interprets the kernels."""
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, root / "tools" / "compile_kernels.py", "90", "128"],
        env={**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    stacks = [int(size) for size in re.findall(r"(\d+) bytes of stack", run.stdout)]
    assert len(stacks) == 8 and max(stacks) <= 64
