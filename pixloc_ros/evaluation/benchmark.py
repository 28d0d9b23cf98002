"""Measure how long each stage of a frame takes, and how far that is from the machine's limits.

The problem is made from the image itself: points at random pixels and depths, with the features
found there. So the right pose is known, and the alignment runs as on a real map.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from pixloc_ros.alignment.coarse_to_fine import Aligner, Stage
from pixloc_ros.alignment.cuda.fused_aligner import fused_aligner
from pixloc_ros.alignment.rig import CameraObservation
from pixloc_ros.common.threads import one_thread
from pixloc_ros.config import Config
from pixloc_ros.features import weights
from pixloc_ros.features.pyramid import MAX_SIDE_PX, FeatureExtractor, FeaturePyramid
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.maps.view import MapView

DEPTHS_M = (4.0, 40.0)
GRAPH_ITERATIONS = 100  # timed together on a GPU, where one launch takes longer than its work
OFFSET = (0.3, -0.1, 0.5, 0.005, 0.02, -0.005)  # a typical tracking error: metres and radians


@dataclass(frozen=True, slots=True)
class Machine:
    """Peak speeds of the device, measured here; rows are compared with these limits."""

    name: str
    device: str
    threads: int
    gflop_per_s: float  # of a matrix product: network precision on a CPU, float16 on a GPU
    gbyte_per_s: float  # of a copy, bytes read and written together


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """Times of one stage. floor_ms: the larger of FLOP and bytes divided by the peak speeds."""

    stage: str
    median_ms: float
    p95_ms: float
    p99_ms: float
    gflop: float
    mbyte: float
    floor_ms: float

    @property
    def ratio(self) -> float:
        """The median as a multiple of the floor."""
        return self.median_ms / self.floor_ms if self.floor_ms else float("inf")


@dataclass(frozen=True, slots=True)
class BenchmarkProblem:
    """An image with a map made from it."""

    image_rgb: NDArray[np.uint8]
    camera: Camera
    pyramid: FeaturePyramid
    view: MapView


class SpeedBenchmark:
    """Times the stages of one configuration on one device."""

    def __init__(self, config: Config, width: int = 640, height: int = 384, runs: int = 20):
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.runs = config, runs
        self.extractor = FeatureExtractor(
            config.features.weights,
            config.device,
            config.features.max_side_px or MAX_SIDE_PX,
            config.features.precision,
            config.features.backend,
        )
        damping, self.kernels = self.extractor.damping, fused_aligner(self.extractor.damping)
        self.aligner = Aligner(damping, config.alignment, config.hypotheses, self.kernels)
        self.machine = measure_machine(config.device, self.extractor.network.dtype)
        self.problem = make_problem(self.extractor, width, height, config.view.max_points)

    @torch.inference_mode()
    def rows(self) -> Iterator[BenchmarkRow]:
        """Measure and yield all stages, one after the other."""
        yield self._network()
        for count in (1, 16, 64):
            for level in range(len(self.extractor.strides)):
                yield self._iteration(level, count)
        for count in (1, 16, 64) if self.kernels else (1, 16):
            yield self._alignment(count)
            yield self._frame(count)

    def _network(self) -> BenchmarkRow:
        problem = self.problem
        with torch.device("meta"):  # counts operations without computing them
            plain = weights.build(self.extractor.architecture.name)
        on_gpu = self.extractor.device.type == "cuda"
        itemsize = 2 if on_gpu else self.extractor.network.dtype.itemsize
        size = itemsize * sum(each.numel() for each in plain.parameters())
        height, width = problem.image_rgb.shape[:2]
        return self._row(
            f"network {width}x{height}",
            lambda: self.extractor.extract(problem.image_rgb),
            self._network_flop(plain),
            size + sum(level.rows.nbytes for level in problem.pyramid.levels),
        )

    def _network_flop(self, plain: weights.Network) -> int:
        finest = self.problem.pyramid.levels[-1]
        height, width = finest.height * finest.stride, finest.width * finest.stride
        with FlopCounterMode(display=False) as counter:
            plain.eval()(torch.zeros(1, 3, height, width, device="meta"))
        return counter.get_total_flops()

    def _iteration(self, level: int, count: int) -> BenchmarkRow:
        problem, stage = self.problem, Stage(level, GRAPH_ITERATIONS - 1, 1)
        system = self.aligner.system(self._observation(), stage)
        poses = self._initial_poses(count)
        points, channels = len(problem.view), self.extractor.dims[level]
        # Four corners of the query map per hypothesis and point, the reference once. Per channel:
        # three stencils of four corners, and six products.
        bytes_read = (2 if self.kernels else 4) * points * (count * 4 * (channels + 1) + channels)
        flop = count * points * channels * (3 * 4 * 2 + 6 * 2)
        stride = self.extractor.strides[level]
        label = f"LM iteration, stride {stride}, {count} x {points} points"
        if self.kernels is None:
            linearize = one_thread()(system.linearize)
            return self._row(label, lambda: linearize(poses), flop, bytes_read)
        work = self.kernels.iterations(stage, system, poses, self.aligner.policy)
        return self._row(label, work, flop, bytes_read, GRAPH_ITERATIONS)

    def _alignment(self, count: int) -> BenchmarkRow:
        return self._row(f"alignment, {count} initial poses", lambda: self._align(count), 0, 0)

    def _frame(self, count: int) -> BenchmarkRow:
        def whole() -> None:
            self.extractor.extract(self.problem.image_rgb)
            self._align(count)

        return self._row(f"network + alignment, {count} initial poses", whole, 0, 0)

    @one_thread()
    def _align(self, count: int) -> None:
        self.aligner.align([self._observation()], self._initial_poses(count))

    def _observation(self) -> CameraObservation:
        device = "cpu" if self.kernels else self.extractor.device
        camera = self.problem.camera.to(dtype=torch.float32, device=device)
        return CameraObservation(self.problem.pyramid, camera, self.problem.view)

    def _initial_poses(self, count: int) -> Pose:
        generator = torch.Generator().manual_seed(0)
        scale = 1.0 + torch.randn(count, 1, generator=generator)
        scale[0] = 1.0
        return Pose.exp((scale * torch.tensor(OFFSET)).to(self.extractor.device))

    def _row(
        self, stage: str, work: Callable[[], object], flop: float, size: float, repeats: int = 1
    ) -> BenchmarkRow:
        times_ms = np.divide(time_ms(work, self.runs, self.config.device), repeats)
        floor_ms = 1e-6 * max(flop / self.machine.gflop_per_s, size / self.machine.gbyte_per_s)
        median, p95, p99 = (float(ms) for ms in np.percentile(times_ms, (50, 95, 99)))
        return BenchmarkRow(stage, median, p95, p99, flop / 1e9, size / 1e6, floor_ms)


def make_problem(
    extractor: FeatureExtractor, width: int, height: int, max_points: int
) -> BenchmarkProblem:
    """Create a textured image and points in it; the camera is at the map's origin."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    focal = 0.6 * width
    center = (width / 2 - 0.5, height / 2 - 0.5)
    camera = Camera.create("PINHOLE", (width, height), (focal, focal), center)
    pyramid = extractor.extract(image)
    pixels = rng.uniform([20, 20], [width - 20, height - 20], (max_points, 2))
    depth = 1.0 / rng.uniform(1 / DEPTHS_M[1], 1 / DEPTHS_M[0], (max_points, 1))
    rays = np.hstack([(pixels - center) / focal, np.ones_like(depth)])
    sampled = pyramid.sample(torch.from_numpy(pixels).float().to(extractor.device))
    view = MapView(
        origin=np.zeros(3),
        points=torch.from_numpy(rays * depth).float().to(extractor.device),
        point_ids=np.arange(max_points, dtype=np.int32),
        features=tuple(features for features, _, _ in sampled),
        confidences=tuple(confidence for _, confidence, _ in sampled),
        keyframes=(),
        nearest_m=0.0,
    )
    return BenchmarkProblem(image, camera, pyramid, view)


def time_ms(work: Callable[[], object], runs: int, device: str) -> list[float]:
    """Return wall times after a warm-up; the device is idle before and after each run."""
    times_ms = []
    for run in range(runs + 3):
        _wait_for(device)
        start = time.perf_counter()
        work()
        _wait_for(device)
        if run >= 3:
            times_ms.append(1e3 * (time.perf_counter() - start))
    return times_ms


def measure_machine(device: str, dtype: torch.dtype) -> Machine:
    """Measure the speed of matrix products and copies that are large enough to load the device.

    dtype: number type of the product on a CPU.
    """
    on_cpu = device == "cpu"
    side, numbers = (1024, 16_000_000) if on_cpu else (8192, 256_000_000)
    a = torch.rand(side, side, device=device, dtype=dtype if on_cpu else torch.half)
    b = torch.rand(numbers, device=device)
    product_ms = min(time_ms(lambda: a @ a, 10, device))
    copy_ms = min(time_ms(lambda: b.clone(), 10, device))
    name = device_name(device)
    gflop_per_s = 2 * side**3 / product_ms / 1e6
    gbyte_per_s = 2 * b.nbytes / copy_ms / 1e6
    return Machine(name, device, torch.get_num_threads(), gflop_per_s, gbyte_per_s)


def device_name(device: str) -> str:
    """Return the name that a processor or GPU reports."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
