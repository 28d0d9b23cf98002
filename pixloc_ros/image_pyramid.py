"""Image pyramids as published (PixLoc, section 4): align on small images first, then on large ones.

A map has features of one image size, so each step of the pyramid needs a map of its own, built from
the same images with another `--max-side-px`. Queries are resized as the map's images were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Estimate, Frame, PosePrior


@dataclass(frozen=True, slots=True)
class PyramidLocalizer:
    """Aligns a frame on several maps in turn, each from the pose found on the one before.

    localizers: of the same place, the one with the smallest images first. The verdict of the last
    one counts.
    """

    localizers: tuple[Localizer, ...]

    @property
    def map(self) -> Map:
        """The map with the largest images."""
        return self.localizers[-1].map

    def localize(
        self,
        frame: Frame,
        prior: PosePrior | Sequence[PosePrior] | None = None,
        other_cameras: Sequence[Frame] = (),
    ) -> Estimate:
        """Find the pose as `Localizer.localize` does.

        A pose found on smaller images is used even if it was rejected. If none was found, the next
        map starts from the given prior.
        """
        for localizer in self.localizers[:-1]:
            found = localizer.localize(frame, prior, other_cameras)
            if found.prior is not None and found.candidate_T_map_base is not None:
                prior = replace(found.prior, T_map_base=found.candidate_T_map_base)
        return self.localizers[-1].localize(frame, prior, other_cameras)
