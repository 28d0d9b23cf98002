"""When a prior that leads nowhere is passed over, so that others get their turn."""

from __future__ import annotations

from pixloc_ros.config.holder import ConfigHolder


class PriorFallback:
    """Due after `fallback_after_misses` misses in a row, then after twice as many, and so on.

    A vehicle that was carried elsewhere is found again within a few frames, and one that drives
    past what nobody could recognise does not search the whole map at every frame.
    """

    def __init__(self, config: ConfigHolder) -> None:
        self._config = config
        self._misses = 0
        self._since_ns = 0

    def clear(self) -> None:
        """The prior was right."""
        self._misses = 0

    def miss(self, stamp_ns: int) -> None:
        """Count one more frame that was aligned and did not fit."""
        if self._misses == 0:
            self._since_ns = stamp_ns
        self._misses += 1

    def outdates(self, stamp_ns: int | None) -> bool:
        """Whether what is of that stamp was known before the misses began, and did not help."""
        return self.due and stamp_ns is not None and stamp_ns <= self._since_ns

    @property
    def due(self) -> bool:
        times, rest = divmod(self._misses, self._config.current.priors.fallback_after_misses)
        return times > 0 and rest == 0 and times.bit_count() == 1
