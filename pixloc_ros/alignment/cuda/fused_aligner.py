"""The alignment of a frame on one GPU: two kernels per iteration, one wait for the result.

docs/lab/gpu.md has the design and the floor that it is measured against.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

import torch
from torch import Tensor

from pixloc_ros.alignment.coarse_to_fine import Aligner, Refinement, Stage
from pixloc_ros.alignment.cuda.schedule import Schedule, bytes_per_hypothesis, signature
from pixloc_ros.alignment.policy import Policy, StopByMotion
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.config import AlignmentConfig, HypothesesConfig
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.pose import Pose

log = logging.getLogger(__name__)

SCHEDULES_KEPT = 8  # of rounded sizes, the latest used
MEMORY_SHARE = 0.5  # of what is free, for the hypotheses of one alignment
SMALL_BYTES = 2**28  # less is taken without asking the driver what is free


def aligner_for(damping: Tensor, config: AlignmentConfig, hypotheses: HypothesesConfig) -> Aligner:
    """The aligner for the device of `damping` (L, 6), with fused kernels where they can be used."""
    return Aligner(damping, config, hypotheses, fused_aligner(damping, config, hypotheses))


def fused_aligner(
    damping: Tensor, config: AlignmentConfig, hypotheses: HypothesesConfig
) -> FusedAligner | None:
    """The kernels for the device of `damping`; None where plain torch has to do.

    A GPU that goes without them is slower by far, so the log then has the reason.
    """
    if not damping.is_cuda:
        return None
    if find_spec("triton") is None:
        log.warning("no fused kernels: triton is missing, `pip install pixloc_ros[gpu]`")
        return None
    if config.policy == "reference":
        log.warning("no fused kernels: they do not know the policy 'reference'")
        return None
    return FusedAligner(damping, config, hypotheses)


class FusedAligner:
    """Runs the stages of an `Aligner` in kernels, and keeps their buffers between frames.

    damping: (L, 6) on the device to use. budget_bytes: limit of what the hypotheses of one
    alignment may take; None: a share of the memory that is free.
    """

    def __init__(
        self,
        damping: Tensor,
        config: AlignmentConfig,
        hypotheses: HypothesesConfig,
        budget_bytes: int | None = None,
    ):
        self.damping, self.policy, self.hypotheses = damping, Policy.of(config), hypotheses
        self.budget_bytes = budget_bytes
        self._schedules: dict[object, Schedule] = {}
        self._unknown: set[str] = set()  # camera models

    def supports(self, camera: Camera) -> bool:
        """Whether the kernels know the model of the camera; if not, the log says so, once."""
        if camera.model != "OPENCV_FISHEYE":
            return True
        if camera.model not in self._unknown:
            log.warning("no fused kernels: they do not know the camera model %s", camera.model)
            self._unknown.add(camera.model)
        return False

    @torch.inference_mode()
    def refine(
        self, stages: Sequence[Stage], systems: Sequence[LevelSystem], starts: Pose
    ) -> Refinement:
        """Run the stages, each on its system, from starts (K,), the most likely first.

        Takes fewer starts where memory does not suffice, and a quarter of them once more when the
        device runs out of it all the same. Raises torch.cuda.OutOfMemoryError when that is too
        much, too.
        """
        count = self._affordable(systems, len(starts.t))
        try:
            return self._run(stages, systems, starts[:count])
        except torch.cuda.OutOfMemoryError:
            if count == 1:
                raise
        log.warning("%d hypotheses do not fit into GPU memory: %d are tried", count, count // 4)
        self._schedules.clear()
        torch.cuda.empty_cache()
        return self._run(stages, systems, starts[: max(1, count // 4)])

    @torch.inference_mode()
    def iterations(self, stage: Stage, system: LevelSystem, starts: Pose) -> Callable[[], None]:
        """The iterations of one stage, none of which ends early, ready to be timed."""
        policy = replace(self.policy, stop=StopByMotion(0.0))
        count = len(starts.t)
        schedule = Schedule([stage], [system], count, self.damping, policy, self.hypotheses)
        schedule.load([system], starts)
        return schedule.launch

    def _affordable(self, systems: Sequence[LevelSystem], count: int) -> int:
        each = sum(bytes_per_hypothesis(system) for system in systems)
        affordable = int(self._budget(count * each) // each)
        if affordable == 0:
            raise torch.cuda.OutOfMemoryError("not one hypothesis fits into GPU memory")
        return min(count, affordable)

    def _budget(self, wanted_bytes: float) -> float:
        if self.budget_bytes is not None:
            return self.budget_bytes
        if wanted_bytes < SMALL_BYTES or not self.damping.is_cuda:
            return wanted_bytes
        return MEMORY_SHARE * torch.cuda.mem_get_info(self.damping.device)[0]

    def _run(
        self, stages: Sequence[Stage], systems: Sequence[LevelSystem], starts: Pose
    ) -> Refinement:
        with torch.cuda.device_of(self.damping):
            schedule = self._schedule(stages, systems, len(starts.t))
            schedule.load(systems, starts)
            schedule.launch()
            return schedule.read(len(systems[-1].points), len(starts.t))

    def _schedule(
        self, stages: Sequence[Stage], systems: Sequence[LevelSystem], count: int
    ) -> Schedule:
        key = signature(stages, systems, count)
        schedule = self._schedules.pop(key, None)
        if schedule is None:
            while len(self._schedules) >= SCHEDULES_KEPT:
                del self._schedules[next(iter(self._schedules))]
            schedule = Schedule(stages, systems, count, self.damping, self.policy, self.hypotheses)
        self._schedules[key] = schedule
        return schedule
