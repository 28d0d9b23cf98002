"""Count everything that was received, dropped or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class Counters:
    """Counts by name, with the latest line about each kind of trouble.

    on_first: called with name and line when something with a line is counted for the first time.
    """

    def __init__(self, on_first: Callable[[str, str], None] = lambda name, line: None) -> None:
        self._on_first = on_first
        self._counts: Counter[str] = Counter()
        self._lines: dict[str, str] = {}

    def add(self, name: str, line: str = "") -> None:
        """Count one occurrence. line: what went wrong, if anything did."""
        self._counts[name] += 1
        if line:
            self._lines[name] = line
            if self._counts[name] == 1:
                self._on_first(name, line)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def counts(self) -> dict[str, int]:
        """Return all counts by name, sorted."""
        return dict(sorted(self._counts.items()))

    def last_line(self, prefix: str) -> str:
        """Return the line of a name with this prefix; empty if there is none."""
        lines = (line for name, line in self._lines.items() if name.startswith(prefix))
        return next(lines, "")

    def lines(self) -> list[tuple[str, str]]:
        """Return names and counts, with the latest line if there is one."""
        return [
            (name, f"{count}: {self._lines[name]}" if name in self._lines else str(count))
            for name, count in sorted(self._counts.items())
        ]
