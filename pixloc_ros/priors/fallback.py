"""Decide when a prior that keeps failing is skipped, so that other sources are tried."""

from __future__ import annotations

from pixloc_ros.config.holder import ConfigHolder


class PriorFallback:
    """Due after `fallback_after_misses` misses in a row, then after twice as many, and so on.

    So a vehicle that was carried elsewhere is found again within a few frames, while one that
    drives past an unrecognizable place does not search the whole map at every frame.
    """

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._misses = 0
        self._since_ns = 0

    def clear(self) -> None:
        """Forget the misses: the prior was right."""
        self._misses = 0

    def miss(self, stamp_ns: int) -> None:
        """Count one more frame that was aligned but did not fit."""
        if self._misses == 0:
            self._since_ns = stamp_ns
        self._misses += 1

    def outdates(self, stamp_ns: int | None) -> bool:
        """Return whether to skip a prior of this stamp: it was known before the misses began.

        A prior without a stamp is never skipped.
        """
        return self.due and stamp_ns is not None and stamp_ns <= self._since_ns

    @property
    def due(self) -> bool:
        """Whether the prior in use should be skipped for the next frame."""
        times, rest = divmod(self._misses, self._config.current.priors.fallback_after_misses)
        return times > 0 and rest == 0 and times.bit_count() == 1
