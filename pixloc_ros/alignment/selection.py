"""Which of several hypotheses explains the images: the best are re-aligned, then compared.

Most frames have one, from a sure prior; a vague prior gives several, and a search of the whole map
gives some at each of its places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.alignment.coarse_to_fine import COARSE, FINE, MIDDLE, Aligner, same_pose
from pixloc_ros.alignment.problems import AlignmentProblem, ImageFeatures, ViewSelector, local_poses
from pixloc_ros.alignment.result import continued, with_refined_pose
from pixloc_ros.config import Config
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.pose import Pose
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.types import Alignment, loss


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A pose that may be right: where the alignment of a problem ended."""

    problem: AlignmentProblem
    alignment: Alignment

    @property
    def T_map_base(self) -> Matrix:
        """The vehicle's pose (4, 4)."""
        return self.alignment.T_map_cam @ se3.inverse(self.problem.lead.T_base_cam)


@dataclass(frozen=True, slots=True)
class HypothesisSelector:
    """Screens problems before they are aligned, and selects the best hypothesis after it."""

    views: ViewSelector
    aligner: Aligner
    config: Config

    def screen(self, problems: Sequence[AlignmentProblem]) -> list[AlignmentProblem]:
        """Keep the problems worth aligning in full: the best one of every prior, then the next."""
        if len(problems) == 1:
            return list(problems)
        screened = [self.aligner.screen(p.observations, p.initial_poses) for p in problems]
        costs = [cost for _, cost, _ in screened]
        order = np.argsort(costs, kind="stable").tolist()
        best_of_prior = {id(problems[i].prior): i for i in reversed(order)}.values()
        highest, keep_views = self._highest_cost(min(costs)), self.config.hypotheses.keep_views
        others = [i for i in order if i not in best_of_prior and costs[i] <= highest]
        kept = [*best_of_prior, *others][: max(keep_views, len(best_of_prior))]
        return [_screened(problems[i], screened[i][0], screened[i][2]) for i in kept]

    def align(self, problem: AlignmentProblem) -> Hypothesis:
        """Align a problem, coarse to fine."""
        alignment = self.aligner.align(
            problem.observations, problem.initial_poses, problem.screened
        )
        return Hypothesis(problem, alignment)

    def select(self, hypotheses: Sequence[Hypothesis]) -> Hypothesis:
        """Select the best hypothesis; the cost of the next best other pose goes with it.

        Those that are about as good are re-aligned before they are compared: from two views of one
        place they may have come to poses that differ by what the views do not determine.
        """
        least = min(hypothesis.alignment.cost for hypothesis in hypotheses)
        limit = least + self.config.hypotheses.re_alignment_margin
        close = [hypothesis for hypothesis in hypotheses if hypothesis.alignment.cost <= limit]
        worse = [hypothesis for hypothesis in hypotheses if not hypothesis.alignment.cost <= limit]
        distinct = self._distinct(close)
        return self._best([self._re_aligned(self._best([each, *worse])) for each in distinct])

    def compare_with_alternatives(self, best: Hypothesis) -> Hypothesis:
        """Compare the best hypothesis with alternative poses ahead of it and behind.

        One that wins is compared with its own alternatives, once.
        """
        for _ in range(2):
            if not best.alignment.cost <= self.config.acceptance.max_cost:
                return best
            before = best.alignment.T_map_cam
            alternatives = self.views.alternative_poses(best.problem, best.T_map_base)
            promising = self._promising(alternatives, best)
            if promising:
                best = self.select([best, *map(self.align, promising)])
            if same_pose(best.alignment.T_map_cam, before, self.config.hypotheses):
                break
        return self._re_align_runner_up(best)

    def beyond_prior(self, found: Hypothesis) -> list[Hypothesis]:
        """Find other poses ahead and behind, farther than the prior allows, the best first.

        Those whose agreement comes near that of the pose found, or exceeds it, are aligned from
        the views that suit them. A street that looks the same at one of them may repeat once more:
        from the farthest one ahead, and behind, the search goes on, once.
        """
        others = self._beyond_prior_around(found, found)
        for direction in (1, -1):
            farthest = max([found, *others], key=lambda each: direction * _ahead_m(found, each))
            if farthest is not found:
                others = [*others, *self._beyond_prior_around(found, farthest, [direction])]
        return self._distinct(others)

    def refine(self, found: Hypothesis) -> Hypothesis:
        """Move a pose by one step, for which each point is compared with several keyframes.

        Pose and covariance change a little; all that tells whether the pose is right remains that
        of the pose found. A step to what counts as another pose is not taken.
        """
        T_map_cam, observations = found.alignment.T_map_cam, found.problem.observations
        if all(each.view.further is None for each in observations):
            return found
        initial = local_poses(T_map_cam[None], observations[0].view)
        moved, at = self.aligner.step_on_fine_level(observations, initial)
        T_refined = found.problem.T_map_cam(moved)
        alignment = with_refined_pose(found.alignment, T_refined, at, observations)
        same = same_pose(T_refined, T_map_cam, self.config.hypotheses)
        if not same or not np.isfinite(alignment.covariance_cam).all():
            return found
        return replace(found, alignment=alignment)

    def _beyond_prior_around(
        self, found: Hypothesis, around: Hypothesis, directions: Sequence[int] = (1, -1)
    ) -> list[Hypothesis]:
        """Those ahead of one of the poses (1), behind it (-1), or both."""
        T_map_base = around.T_map_base
        alternatives = self.views.poses_beyond_prior(found.problem, T_map_base, directions)
        aligned = [self.align(each) for each in self._promising(alternatives, found)]
        highest = self._highest_cost(found.alignment.cost)
        near = [each for each in aligned if each.alignment.cost <= highest]
        others = self._distinct([self._re_aligned(each) for each in self._distinct(near)])
        T_found, limits = found.alignment.T_map_cam, self.config.hypotheses
        return [
            each
            for each in others
            if self._loses_little(each, found)
            and not same_pose(each.alignment.T_map_cam, T_found, limits)
        ]

    def _loses_little(self, other: Hypothesis, found: Hypothesis) -> bool:
        margin = self.config.acceptance.beyond_prior_margin
        return loss(other.alignment.cost, found.alignment.cost) < margin

    def _promising(
        self, alternatives: Sequence[AlignmentProblem], best: Hypothesis
    ) -> Sequence[AlignmentProblem]:
        """The alternatives worth aligning in full, from where a screening brought them.

        On the coarse or the middle level most end at poses that agree too little to come near the
        best, or at the best itself.
        """
        limits, alignment = self.config.hypotheses, best.alignment
        for level in (COARSE, MIDDLE):
            if not alternatives:
                break
            problems = [(each.observations, each.initial_poses) for each in alternatives]
            screened = self.aligner.screen_each(problems, level)
            highest = self._highest_cost(self._cost_on(level, alignment))
            alternatives = [
                replace(alternative, initial_poses=poses)
                for alternative, (poses, cost) in zip(alternatives, screened, strict=True)
                if cost <= highest
                and not same_pose(alternative.T_map_cam(poses), alignment.T_map_cam, limits)
            ]
        return alternatives

    def _cost_on(self, level: int, alignment: Alignment) -> float:
        """The cost of an alignment after a level; inf where it has not been there."""
        levels = range(self.aligner.first_level, FINE + 1)
        costs = dict(zip(levels, alignment.cost_per_level[-len(levels) :], strict=False))
        return costs.get(level, np.inf)

    def _highest_cost(self, best: float) -> float:
        """Up to which cost a pose of the coarse or middle level may still come to be the best."""
        return 1 - self.config.hypotheses.min_agreement_share * (1 - best)

    def _re_align_runner_up(self, best: Hypothesis) -> Hypothesis:
        """The better one of the best and its runner-up, where that seems to be about as good.

        Only the best has been aligned from the views that suit it; so is the runner-up now. On a
        street that repeats it stays as good; elsewhere it gets worse, or comes to the same pose.
        """
        alignment, T_map_cam = best.alignment, best.alignment.runner_up_T_map_cam
        limits = self.config.acceptance
        nearly = max(limits.min_runner_up_loss, limits.beyond_prior_margin)
        if T_map_cam is None or alignment.runner_up_loss >= nearly:
            return best
        problem = best.problem
        T_map_base = T_map_cam @ se3.inverse(problem.lead.T_base_cam)
        challenge = self.views.problem(problem.images, T_map_base, problem.prior)
        if challenge is None:
            return best
        alone = replace(alignment, runner_up_cost=np.inf, runner_up_T_map_cam=None)
        return self._best([replace(best, alignment=alone), self.align(challenge)])

    def _best(self, hypotheses: Sequence[Hypothesis]) -> Hypothesis:
        """The hypothesis of the least cost, with its runner-up among the other poses."""
        best = min(hypotheses, key=lambda hypothesis: hypothesis.alignment.cost)
        T_best, limits = best.alignment.T_map_cam, self.config.hypotheses
        own = (best.alignment.runner_up_cost, best.alignment.runner_up_T_map_cam)
        others = [(each.alignment.cost, each.alignment.T_map_cam) for each in hypotheses]
        others = [(cost, T) for cost, T in others if not same_pose(T, T_best, limits)]
        cost, T = min([own, *others], key=lambda other: other[0])
        alignment = replace(best.alignment, runner_up_cost=cost, runner_up_T_map_cam=T)
        return replace(best, alignment=alignment)

    def _distinct(self, hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
        """The hypotheses in order of their cost, of those at one pose the best."""
        distinct: list[Hypothesis] = []
        for each in sorted(hypotheses, key=lambda hypothesis: hypothesis.alignment.cost):
            T, limits = each.alignment.T_map_cam, self.config.hypotheses
            if not any(same_pose(T, other.alignment.T_map_cam, limits) for other in distinct):
                distinct.append(each)
        return distinct

    def _re_aligned(self, first: Hypothesis) -> Hypothesis:
        """The hypothesis aligned once more where it is worth it, with the views that suit it."""
        T_map_cam_prior = first.problem.T_map_cam_prior
        alignment = replace(first.alignment, T_map_cam_prior=T_map_cam_prior)
        first = replace(first, alignment=alignment)
        images = self._worth_re_aligning(first)
        T_map_base, prior = first.T_map_base, first.problem.prior
        problem = self.views.problem(images, T_map_base, prior) if images else None
        if problem is None and first.problem.provisional:  # nothing to believe it by
            return replace(first, alignment=replace(alignment, cost=np.inf))
        if problem is None:  # no need, or a wrong pose that ends off the map
            return first
        second = self.align(problem).alignment
        whole = continued(alignment, second, problem.observations, problem.T_map_cam_prior)
        return Hypothesis(problem, whole)

    def _worth_re_aligning(self, found: Hypothesis) -> list[ImageFeatures]:
        """The images to re-align from the pose found; none if there is no reason to.

        The views, chosen at the prior, may not be the best ones for what was found; and a camera
        that does not agree with the others, covered or frozen, is better left out.
        """
        problem, alignment = found.problem, found.alignment
        if not np.isfinite(alignment.cost):
            return []
        least = self.config.acceptance.min_camera_share
        agree = np.array(alignment.inlier_share_per_camera) >= least
        if agree.all() or not agree.any():
            return list(problem.images) if self._moved(found) else []
        return [image for image, good in zip(problem.images, agree, strict=True) if good]

    def _moved(self, found: Hypothesis) -> bool:
        """Whether the pose is far from where its views were chosen, or they are provisional."""
        problem, limits = found.problem, self.config.view
        if problem.provisional:
            return True
        T_view = problem.T_map_base_view @ problem.lead.T_base_cam
        T_found = found.alignment.T_map_cam
        return (
            se3.distance_m(T_view, T_found) > limits.reselect_distance_m
            or se3.angle_deg(T_view, T_found) > limits.reselect_angle_deg
        )


def _screened(problem: AlignmentProblem, poses: Pose, dropped: int) -> AlignmentProblem:
    return replace(problem, initial_poses=poses, screened=True, hypotheses_dropped=dropped)


def with_hypothesis_counts(
    best: Hypothesis, problems: Sequence[AlignmentProblem], aligned: Sequence[Hypothesis]
) -> Hypothesis:
    """Return the best hypothesis with the numbers of all that were aligned, dropped and needed."""
    dropped = sum(
        each.problem.hypotheses_dropped + each.alignment.hypotheses_dropped for each in aligned
    )
    count = sum(len(problem.initial_poses.t) for problem in problems) - dropped
    counted = replace(
        best.alignment,
        hypotheses=count,
        hypotheses_dropped=dropped,
        hypotheses_needed=sum(problem.hypotheses_needed for problem in problems),
    )
    return replace(best, alignment=counted)


def _ahead_m(of: Hypothesis, other: Hypothesis) -> float:
    return float((se3.inverse(of.T_map_base) @ other.T_map_base)[0, 3])
