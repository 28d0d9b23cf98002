"""What to say of data that are laid out otherwise than expected, or cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pixloc_ros.errors import DataError


def subfolders(root: Path, pattern: str) -> list[str]:
    """Names of the folders in root that hold what the pattern says."""
    return sorted(path.relative_to(root).parts[0] for path in root.glob(pattern))


def expect(root: Path, layout: str, needed: Sequence[Path], names: Sequence[str]) -> None:
    """Raise DataError unless all that is needed is there."""
    missing = next((path for path in needed if not path.exists()), None)
    if names and missing is None:
        return
    lacks = missing.relative_to(root).as_posix() if missing else "all of it"
    raise DataError(f"{root} lacks {lacks}: expected {layout}; found {_listing(root)}")


def _listing(root: Path, most: int = 8) -> str:
    if not root.is_dir():
        return "no such folder"
    names = sorted(path.name for path in root.iterdir())
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"


def reasons(skipped: Counter[str]) -> str:
    """`3 tiny, 2 unreadable`, or that there was nothing."""
    return ", ".join(f"{n} {reason}" for reason, n in (+skipped).items()) or "none"
