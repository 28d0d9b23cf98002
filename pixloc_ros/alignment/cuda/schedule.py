"""The kernels of one alignment in a fixed order on buffers of fixed sizes.

Counts of hypotheses and points are rounded up; what is absent is marked and hardly costs. So the
whole coarse-to-fine alignment is one CUDA graph, captured once, and the host waits only to read
the result.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import Stage
from pixloc_ros.alignment.policy import DAMPING_FLOOR, LevelResult, Policy, StopByMotion
from pixloc_ros.alignment.residuals import LevelSystem, Linearization
from pixloc_ros.alignment.result import Refinement
from pixloc_ros.config import HypothesesConfig
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.distortion import FISHEYE
from pixloc_ros.geometry.pose import Pose

log = logging.getLogger(__name__)

BLOCK_POINTS = 64  # per program; with 8 warps four threads share a point
INTERPRETED_BLOCK_POINTS = 128  # there the cost is per program
WARPS = 8
CHUNK_TILES = 16  # partial sums that are added at once
MIN_CAPACITY = 256
CAMERA = 24  # numbers, see `pack_camera`
RESULT = 24  # a state of 8 numbers and a pose of 16


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages, each with its system, and the rules that hold for all of them."""

    stages: Sequence[Stage]
    systems: Sequence[LevelSystem]
    policy: Policy
    hypotheses: HypothesesConfig

    def signature(self, count: int) -> object:
        """What must be equal for a schedule of so many hypotheses to be used again."""
        camera = self.systems[0].camera
        kind = lens_kind(camera), camera.shutter is not None
        rules = (self.policy, *merge_limits(self.hypotheses))
        return power_of_two(count), *self.stages, *map(_sizes, self.systems), *kind, *rules


class LevelBuffers:
    """One stage on the device: its data in the layout of the kernels, and their launches."""

    def __init__(
        self,
        stage: Stage,
        system: LevelSystem,
        places: PoseBuffers,
        damping: Tensor,
        policy: Policy,
        hypotheses: HypothesesConfig,
    ):
        device, level = damping.device, system.level
        self.stage, self.policy = stage, policy
        self.width, self.height = level.width, level.height
        self.merge_m2, self.merge_chord2 = merge_limits(hypotheses)
        self.lens = lens_kind(system.camera)
        self.rolling = system.camera.shutter is not None
        self.channels = system.reference.shape[-1]
        self.C = max(32, power_of_two(self.channels))  # zeros beyond the channels
        self.block = BLOCK_POINTS if device.type == "cuda" else INTERPRETED_BLOCK_POINTS
        assert stage.keep is not None
        K, N = len(places.T), capacity(system)
        self.tiles = N // self.block
        self.now, self.next = places, PoseBuffers(min(stage.keep, K), device)
        self.best_T = torch.zeros(K, 4, 4, device=device)
        self.result = torch.zeros(len(self.next.T), RESULT, device=device)
        self.pixels = torch.zeros(2, K, N, 2, device=device)  # by turns
        self.sums = torch.zeros(K, self.tiles, 8, 8, device=device)
        self.points = torch.zeros(N, 3, device=device)
        self.confidence = torch.zeros(N, device=device)
        self.reference = torch.zeros(N, self.C, device=device, dtype=torch.half)
        self.rows = torch.zeros(len(level.rows), self.C + 8, device=device, dtype=torch.half)
        self.camera = torch.zeros(CAMERA, device=device)
        self.count = torch.zeros(1, device=device, dtype=torch.int32)
        self.damping = F.pad(damping[stage.level].float(), (0, 2))
        self.squared = torch.zeros(N, device=device)
        self.gradients = torch.zeros(N, 8, device=device)

    def load(self, system: LevelSystem) -> None:
        """Copy a frame's problem into the buffers, without waiting."""
        n, c, rows = len(system.points), self.channels, system.level.rows
        self.count.fill_(n)
        self.points[:n].copy_(system.points)
        self.confidence[:n].copy_(system.confidence)
        self.reference[:n, :c].copy_(system.reference)
        self.rows[:, :c].copy_(rows[:, :c])
        self.rows[:, self.C].copy_(rows[:, c])
        self.camera.copy_(pack_camera(system.camera), non_blocking=True)

    def solve(self) -> None:
        """Run all iterations of all hypotheses; the first only judges the initial poses."""
        for number in range(self.stage.iterations + 1):
            self.linearize(self.now, number % 2)
            self.step()
        self.best_distinct()

    def linearize(self, places: PoseBuffers, turn: int = 0, emit: bool = False) -> None:
        """Fill `sums`, `pixels[1 - turn]`, and with emit `squared`, `gradients` of one place."""
        from pixloc_ros.alignment.cuda import linearize_kernels

        grid = (1 if emit else len(places.T), self.tiles)
        scale = self.policy.robust.scale
        linearize_kernels.linearize[grid](
            places.T, places.state, self.camera, self.count, self.points, self.confidence,
            self.reference, self.rows, self.width, self.height,
            self.pixels[turn], self.pixels[1 - turn], self.sums,
            self.squared, self.gradients, len(self.points), self.tiles,
            scale, 1 / math.log1p(2 / scale),
            C=self.C, BLOCK=self.block, LENS=self.lens, ROLLING=self.rolling,
            EMIT=emit, num_warps=WARPS,
        )  # fmt: skip

    def step(self) -> None:
        """Judge what was linearised, keep the best iterates and move on."""
        from pixloc_ros.alignment.cuda import step_kernels

        policy = self.policy
        assert isinstance(policy.stop, StopByMotion)
        step_kernels.step[(len(self.now.T),)](
            self.now.T, self.best_T, self.now.state, self.sums, self.count, self.damping,
            self.tiles, DAMPING_FLOOR, policy.max_step_m, math.radians(policy.max_step_deg),
            policy.min_points, policy.stop.motion_px,
            BLOCK=self.block, CHUNK=CHUNK_TILES, num_warps=1,
        )  # fmt: skip

    def best_distinct(self) -> None:
        """Write the best distinct iterates to `next`, as initial poses, and to `result`."""
        from pixloc_ros.alignment.cuda import step_kernels

        step_kernels.best_distinct[(1,)](
            self.best_T, self.now.state, self.next.T, self.next.state, self.result,
            len(self.now.T), self.merge_m2, self.merge_chord2, self.stage.min_agreement_share,
            LANES=power_of_two(len(self.now.T)), KEEP=len(self.next.T),
            num_warps=1,
        )  # fmt: skip


class PoseBuffers:
    """Room for hypotheses: poses T_cam_local (K, 4, 4), and states (K, 8) as kernels name them."""

    def __init__(self, count: int, device: torch.device):
        self.T = torch.zeros(count, 4, 4, device=device)
        self.state = torch.zeros(count, 8, device=device)

    def start(self, initial: Pose) -> None:
        """Begin from poses (K,), no more than there are places."""
        count = len(initial.t)
        self.T[:count, :3, :3].copy_(initial.R)
        self.T[:count, :3, 3].copy_(initial.t)
        self.T[:count, 3, 3].fill_(1)
        self.state.zero_()
        self.state[:count, 0].fill_(math.inf)  # cost
        self.state[:count, 1].fill_(-1)  # iterations
        self.state[:count, 2::3].fill_(1)  # active, exists


class Schedule:
    """All stages of an alignment, for problems of one signature."""

    def __init__(self, plan: Plan, count: int, damping: Tensor):
        self.problems: list[LevelBuffers] = []
        places = PoseBuffers(power_of_two(count), damping.device)
        for stage, system in zip(plan.stages, plan.systems, strict=True):
            problem = LevelBuffers(stage, system, places, damping, plan.policy, plan.hypotheses)
            self.problems.append(problem)
            places = problem.next
        last = self.problems[-1]
        self.parts = [problem.result for problem in self.problems]
        self.parts += [last.sums[0], last.squared, last.gradients, last.pixels[1, 0]]
        self.output = torch.empty(sum(p.numel() for p in self.parts), device=damping.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = False

    def load(self, systems: Sequence[LevelSystem], initial: Pose) -> None:
        """Copy a frame's problems and initial poses into the buffers."""
        for problem, system in zip(self.problems, systems, strict=True):
            problem.load(system)
        self.problems[0].now.start(initial)

    def launch(self) -> None:
        """Enqueue all work: kernel by kernel the first time, as one graph from then on."""
        if self.graph is not None:
            self.graph.replay()
            return
        self._enqueue()
        if self.output.is_cuda and not self.warm:
            self.warm = True  # compiled and loaded, so it can be captured
            self._capture()

    def _enqueue(self) -> None:
        for problem in self.problems:
            problem.solve()
        problem.linearize(problem.next, emit=True)
        torch.cat([part.flatten() for part in self.parts], out=self.output)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._enqueue()
        except RuntimeError as error:
            log.warning("no CUDA graph, kernels are launched one by one: %s", error)
        else:
            self.graph = graph

    def read(self, points: int, hypotheses: int) -> Refinement:
        """Wait for the result: the only synchronisation of an alignment."""
        flat = self.output.cpu().split([part.numel() for part in self.parts])
        *results, sums, squared, gradients, pixels = (
            values.view(part.shape) for values, part in zip(flat, self.parts, strict=True)
        )
        total = sums[: math.ceil(points / self.problems[-1].block)].sum(0)
        at = Linearization(
            cost=total[7, 0] / total[7, 4].clamp(min=torch.finfo(total.dtype).tiny),
            gradient=total[6, :6],
            hessian=total[:6, :6],
            in_view=total[7, 1].int(),
            pixels=pixels[:points],
            squared=squared[:points],
            point_gradients=gradients[:points, :6],
        )
        levels = [problem.stage.level for problem in self.problems]
        history = [(i, level_result(r)) for i, r in zip(levels, results, strict=True)]
        return Refinement(history, at, hypotheses)


def level_result(result: Tensor) -> LevelResult:
    """From rows (KEEP, 24) on the CPU, without the places that nothing filled."""
    result = result[result[:, 5] > 0]
    cost, iterations, _, converged, failed = result[:, :5].unbind(-1)
    T = result[:, 8:].unflatten(-1, (4, 4))
    return LevelResult(Pose.from_matrix(T), cost, iterations.int(), converged.bool(), failed.bool())


def lens_kind(camera: Camera) -> int:
    """0: no distortion; 1: radial, rational and tangential; 2: fisheye."""
    return {"PINHOLE": 0, FISHEYE: 2}.get(camera.model, 1)


def pack_camera(camera: Camera) -> Tensor:
    """(24,): focal, center, last pixel (x, y), max_radius2, 0, then k1 k2 p1 p2 k3 k4 k5 k6.

    A fisheye's k1 k2 k3 k4 come in the place of these.

    Of a rolling shutter then the row at the stamp and the twist from row to row; zeros.
    """
    head = [camera.focal, camera.center, camera.size - 1, F.pad(camera.max_radius2[None], (0, 1))]
    distortion, shutter = camera.distortion, camera.shutter
    parts = [*head, F.pad(distortion, (0, 8 - len(distortion)))]
    if shutter is not None:
        parts += [shutter.stamp_row[None], shutter.twist]
    packed = torch.cat(parts).float()
    return F.pad(packed, (0, CAMERA - len(packed)))


def merge_limits(hypotheses: HypothesesConfig) -> tuple[float, float]:
    """Squared distance of camera centres, squared Frobenius distance of rotations."""
    half_angle = math.radians(hypotheses.same_pose_deg) / 2
    return hypotheses.same_pose_m**2, 8 * math.sin(half_angle) ** 2


def power_of_two(count: int) -> int:
    """The next one, at least 1."""
    return 1 << max(0, count - 1).bit_length()


def capacity(system: LevelSystem) -> int:
    """Room for the points of a system, rounded up so that few sizes occur."""
    return max(MIN_CAPACITY, power_of_two(len(system.points)))


def bytes_per_hypothesis(system: LevelSystem) -> float:
    """Of a stage: pixels and partial sums."""
    return capacity(system) * (16 + 256 / BLOCK_POINTS)


def _sizes(system: LevelSystem) -> tuple[int, ...]:
    """Of the buffers that hold a system."""
    level = system.level
    return capacity(system), level.height, level.width, system.reference.shape[-1]
