"""Which of several looks explains the images: the promising ones are aligned, the best look again.

Most frames have one look, from a sure prior; a vague one gives several, and a search of the whole
map gives some at each of its places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.alignment.coarse_to_fine import Aligner, continued
from pixloc_ros.alignment.problems import AlignmentProblem, ImageFeatures, ViewSelector
from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.config import Config
from pixloc_ros.geometry import se3
from pixloc_ros.types import Alignment, Matrix


@dataclass(frozen=True, slots=True)
class HypothesisSelector:
    """Aligns looks, and tells the best one."""

    search: ViewSelector
    aligner: Aligner
    config: Config

    def winner(
        self, looks: list[AlignmentProblem], watch: Stopwatch
    ) -> tuple[AlignmentProblem, Alignment]:
        """The look that explains the images best, and its alignment; the others are its rivals."""
        starts = sum(len(look.starts.t) for look in looks)
        with watch("scouting"):
            looks = self._promising(looks)
        with watch("alignment"):
            found = [self.aligner.align(look.sights, look.starts) for look in looks]
        with watch("second look"):
            look, alignment = self._best_of(looks, found)
        with watch("rivals"):
            look, alignment = self._challenged(look, alignment)
        dropped = sum(alignment.hypotheses_dropped for alignment in found)
        return look, replace(alignment, hypotheses=starts - dropped, hypotheses_dropped=dropped)

    def _promising(self, looks: list[AlignmentProblem]) -> list[AlignmentProblem]:
        """The looks worth aligning in full: the best one of every prior, then the next best."""
        keep_views = self.config.hypotheses.keep_views
        if len(looks) <= keep_views:
            return looks
        scouted = [self.aligner.scout(look.sights, look.starts) for look in looks]
        order = np.argsort([cost for _, cost in scouted], kind="stable").tolist()
        leaders = {id(looks[i].prior): i for i in reversed(order)}.values()
        others = [i for i in order if i not in leaders]
        kept = [*leaders, *others][: max(keep_views, len(leaders))]
        return [replace(looks[i], starts=scouted[i][0]) for i in kept]

    def _best_of(
        self, looks: list[AlignmentProblem], found: list[Alignment]
    ) -> tuple[AlignmentProblem, Alignment]:
        """The best of all looks and its end.

        Those that are about as good look again before they are compared: from two views of one
        place they may have come to poses that differ by what the views could not tell.
        """
        least = min(alignment.cost for alignment in found)
        close = [a.cost <= least + self.config.acceptance.ambiguity_margin for a in found]
        worse = [a for a, is_close in zip(found, close, strict=True) if not is_close]
        ends = []
        for i in np.flatnonzero(close):
            _, alignment = self.aligner.winner([found[i], *worse])
            ends.append(self._look_again(looks[i], alignment))
        index, best = self.aligner.winner([alignment for _, alignment in ends])
        return ends[index][0], best

    def _challenged(
        self, look: AlignmentProblem, alignment: Alignment
    ) -> tuple[AlignmentProblem, Alignment]:
        """The better one of what was found and what lies ahead of it or behind."""
        if not alignment.cost <= self.config.acceptance.max_cost:
            return look, alignment
        T_map_base = alignment.T_map_cam @ se3.inverse(look.lead.T_base_cam)
        rivals = self.search.beside(look, T_map_base)
        if not rivals:
            return look, alignment
        found = [self.aligner.align(rival.sights, rival.starts) for rival in rivals]
        return self._best_of([look, *rivals], [alignment, *found])

    def _look_again(
        self, first_look: AlignmentProblem, first: Alignment
    ) -> tuple[AlignmentProblem, Alignment]:
        """Align once more where it is worth it, from the pose found, with what suits it."""
        first = replace(first, T_map_cam_prior=_T_map_cam_prior(first_look))
        seen = self._worth_another_look(first_look, first)
        T_map_base = first.T_map_cam @ se3.inverse(first_look.lead.T_base_cam)
        look = self.search.look(seen, T_map_base, first_look.prior) if seen else None
        if look is None:  # no need, or a wrong pose that ends off the map
            return first_look, first
        second = self.aligner.align(look.sights, look.starts)
        return look, continued(first, second, look.sights, _T_map_cam_prior(look))

    def _worth_another_look(
        self, look: AlignmentProblem, alignment: Alignment
    ) -> list[ImageFeatures]:
        """The cameras to look through again, from the pose found; none if there is no reason to.

        The views, chosen at the prior, may not be the best ones for what was found; and a camera
        that does not agree with the others, covered or frozen, is better left out.
        """
        if not np.isfinite(alignment.cost):
            return []
        least = self.config.acceptance.min_camera_share
        agree = np.array(alignment.inlier_share_per_camera) >= least
        if agree.all() or not agree.any():
            return list(look.seen) if self._moved(alignment) else []
        return [seen for seen, good in zip(look.seen, agree, strict=True) if good]

    def _moved(self, alignment: Alignment) -> bool:
        T_prior, T_found = alignment.T_map_cam_prior, alignment.T_map_cam
        limits = self.config.view
        return (
            se3.distance_m(T_prior, T_found) > limits.reselect_distance_m
            or se3.angle_deg(T_prior, T_found) > limits.reselect_angle_deg
        )


def _T_map_cam_prior(look: AlignmentProblem) -> Matrix:
    """Where the prior has the look's lead."""
    return look.prior.T_map_base @ look.lead.T_base_cam
