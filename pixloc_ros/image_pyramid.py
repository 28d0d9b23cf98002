"""Image pyramids as published (section 4): the whole image small first, then larger.

A map has the features of one image size, so each step of the pyramid is a map of its own, built
from the same images with another `--max-side-px`. Queries take their size from the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Estimate, Frame, PosePrior


@dataclass(frozen=True, slots=True)
class PyramidLocalizer:
    """Aligns a frame on one map after the other, each from where the one before ended.

    localizers: of the same place, that of the smallest images first. The last one's verdict counts.
    """

    localizers: tuple[Localizer, ...]

    @property
    def map(self) -> Map:
        """The map of the largest images."""
        return self.localizers[-1].map

    def localize(
        self,
        frame: Frame,
        prior: PosePrior | Sequence[PosePrior] | None = None,
        other_cameras: Sequence[Frame] = (),
    ) -> Estimate:
        """Find the pose as `Localizer.localize` does.

        A pose of smaller images is taken as it is, refused or not; where there is none, what the
        prior said goes on.
        """
        for localizer in self.localizers[:-1]:
            found = localizer.localize(frame, prior, other_cameras)
            if found.prior is not None and found.candidate_T_map_base is not None:
                prior = replace(found.prior, T_map_base=found.candidate_T_map_base)
        return self.localizers[-1].localize(frame, prior, other_cameras)
