"""When a download that failed is tried again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pixloc_ros.config import TilesConfig
from pixloc_ros.maps.transport import Interrupted

Result = TypeVar("Result")
log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential back-off. count: retries after the first attempt."""

    count: int
    first_pause_s: float

    @classmethod
    def of(cls, config: TilesConfig) -> Retries:
        """As configured."""
        return cls(config.fetch_retries, config.fetch_retry_s)

    def pause_s(self, failures: int) -> float:
        """Return the pause after this many failures in a row."""
        return float(min(self.first_pause_s * 2.0 ** min(failures - 1, 32), LONGEST_PAUSE_S))

    def run(self, download: Callable[[], Result]) -> Result:
        """Call `download` until it is not interrupted any more, and wait between the attempts.

        Each attempt begins anew. Raises what the last attempt raised; other errors at once.
        """
        for failures in range(1, self.count + 1):
            try:
                return download()
            except Interrupted as error:
                pause_s = self.pause_s(failures)
                log.warning("%s; next attempt in %g s", error, pause_s)
                time.sleep(pause_s)
        return download()
