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

from pixloc_ros.alignment.coarse_to_fine import Stage
from pixloc_ros.alignment.cuda.schedule import Plan, Schedule, bytes_per_hypothesis
from pixloc_ros.alignment.policy import Policy, StopByMotion
from pixloc_ros.alignment.residuals import LevelSystem
from pixloc_ros.alignment.result import Refinement
from pixloc_ros.config import HypothesesConfig
from pixloc_ros.geometry.pose import Pose

log = logging.getLogger(__name__)

SCHEDULES_KEPT = 8  # of rounded sizes, the latest used
MEMORY_SHARE = 0.5  # of what is free, for the hypotheses of one alignment
SMALL_BYTES = 2**28  # less is taken without asking the driver what is free


def fused_aligner(damping: Tensor) -> FusedAligner | None:
    """Return the kernels for the device of `damping` (L, 6); None where plain torch has to do.

    A GPU that goes without them is slower by far, so the log then has the reason.
    """
    if not damping.is_cuda:
        return None
    if find_spec("triton") is None:
        log.warning("no fused kernels: triton is missing, `pip install pixloc_ros[gpu]`")
        return None
    return FusedAligner(damping)


class FusedAligner:
    """Runs the stages of an `Aligner` in kernels, and keeps their buffers between frames.

    damping: (L, 6) on the device to use. budget_bytes: limit of what the hypotheses of one
    alignment may take; None: a share of the memory that is free.
    """

    def __init__(self, damping: Tensor, budget_bytes: int | None = None):
        self.damping, self.budget_bytes = damping, budget_bytes
        self._schedules: dict[object, Schedule] = {}
        self._refused = False  # a policy; the log has said so

    def supports(self, policy: Policy) -> bool:
        """Tell whether the kernels know the policy; if not, the log says so, once."""
        if isinstance(policy.stop, StopByMotion):
            return True
        if not self._refused:
            log.warning("no fused kernels: they do not know the policy 'reference'")
            self._refused = True
        return False

    @torch.inference_mode()
    def refine(
        self,
        stages: Sequence[Stage],
        systems: Sequence[LevelSystem],
        initial: Pose,
        policy: Policy,
        hypotheses: HypothesesConfig,
    ) -> Refinement:
        """Run the stages, each on its system, from initial poses (K,), the most likely first.

        Takes fewer poses where memory does not suffice, and a quarter of them once more when the
        device runs out of it all the same. Raises torch.cuda.OutOfMemoryError when that is too
        much, too.
        """
        plan = Plan(stages, systems, policy, hypotheses)
        count = self._affordable(systems, len(initial.t))
        try:
            return self._run(plan, initial[:count])
        except torch.cuda.OutOfMemoryError:
            if count == 1:
                raise
        log.warning("%d hypotheses do not fit into GPU memory: %d are tried", count, count // 4)
        self._schedules.clear()
        torch.cuda.empty_cache()
        return self._run(plan, initial[: max(1, count // 4)])

    @torch.inference_mode()
    def iterations(
        self, stage: Stage, system: LevelSystem, initial: Pose, policy: Policy
    ) -> Callable[[], None]:
        """Return the iterations of one stage, none of which ends early, ready to be timed."""
        plan = Plan([stage], [system], replace(policy, stop=StopByMotion(0.0)), HypothesesConfig())
        schedule = Schedule(plan, len(initial.t), self.damping)
        schedule.load([system], initial)
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

    def _run(self, plan: Plan, initial: Pose) -> Refinement:
        with torch.cuda.device_of(self.damping):
            schedule = self._schedule(plan, len(initial.t))
            schedule.load(plan.systems, initial)
            schedule.launch()
            return schedule.read(len(plan.systems[-1].points), len(initial.t))

    def _schedule(self, plan: Plan, count: int) -> Schedule:
        signature = plan.signature(count)
        schedule = self._schedules.pop(signature, None)
        if schedule is None:
            while len(self._schedules) >= SCHEDULES_KEPT:
                del self._schedules[next(iter(self._schedules))]
            schedule = Schedule(plan, count, self.damping)
        self._schedules[signature] = schedule
        return schedule
