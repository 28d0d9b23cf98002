"""When the place of a tracked vehicle is compared with others that look like it."""

from __future__ import annotations

from dataclasses import replace

from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.types import Estimate, PosePrior


class PlaceComparison:
    """Where an accepted pose was last compared with poses beyond its prior, and the outcome.

    It holds for what is carried on from there, so that tracking does not pay for it at each frame.
    It is made again after some metres, sooner where other places looked the same: what does not
    repeat comes into view.
    """

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._position: Matrix | None = None  # (3,) in the map
        self._ambiguity_m = 0.0

    def clear(self) -> None:
        """Compare at the next frame."""
        self._position = None

    def take(self, estimate: Estimate) -> None:
        """Take an accepted estimate: a comparison, or one that relies on the last."""
        relies = estimate.prior is not None and estimate.prior.ambiguity_m is not None
        if relies or estimate.T_map_base is None or estimate.ambiguity_m is None:
            return
        self._position, self._ambiguity_m = estimate.T_map_base[:3, 3], estimate.ambiguity_m

    def with_outcome(self, prior: PosePrior) -> PosePrior:
        """Return the prior with the outcome, as long as that holds."""
        if self._position is None:
            return prior
        options = self._config.current.hypotheses
        holds_m = options.beyond_prior_every_m
        if self._ambiguity_m:
            holds_m = min(holds_m, options.alternative_step_m)
        offset = prior.T_map_base[:3, 3] - self._position
        if offset @ offset >= holds_m**2:
            return prior
        return replace(prior, ambiguity_m=self._ambiguity_m)
