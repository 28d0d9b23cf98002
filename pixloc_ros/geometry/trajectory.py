"""Trajectories over time, and the two plain-text formats of poses.

TUM: `t tx ty tz qx qy qz qw`, the pose T_map_base at t seconds, sorted by time. Named poses: `name
qw qx qy qz tx ty tz`, the pose T_cam_map (COLMAP's cam_from_world) of an image. In both, empty
lines and lines that begin with # are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix

Stamps = NDArray[np.int64]

NS_PER_S = 1_000_000_000
SAME_INSTANT_NS = 100_000  # files round stamps; a car moves only millimetres in this time
NORM_TOLERANCE = 0.01  # beyond it, the four numbers are not a quaternion
MAX_STAMP_S = 9_000_000_000  # more does not fit 64 bits in nanoseconds
TUM_COLUMNS = "t tx ty tz qx qy qz qw"
TUM_HEADER = f"# {TUM_COLUMNS} (T_map_base)\n"
POSES_COLUMNS = "name qw qx qy qz tx ty tz"


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Poses of the vehicle at strictly increasing stamps. May be empty."""

    stamps_ns: Stamps  # (N,)
    T_map_base: Matrix  # (N, 4, 4)

    def __post_init__(self) -> None:
        """Raise DataError for impossible shapes, values or order."""
        if self.T_map_base.shape != (*self.stamps_ns.shape, 4, 4):
            shapes = f"{self.stamps_ns.shape} stamps and {self.T_map_base.shape} poses"
            raise DataError(f"a trajectory has (N,) stamps and (N, 4, 4) poses, got {shapes}")
        if not np.isfinite(self.T_map_base).all():
            raise DataError("a trajectory holds a pose that is not finite")
        if (np.diff(self.stamps_ns) <= 0).any():
            raise DataError("a trajectory must be sorted by stamp, without repetitions")

    @classmethod
    def create(cls, stamps_ns: Iterable[int], poses: Iterable[Matrix]) -> Trajectory:
        """Build a trajectory of poses in any order; of several with one stamp the last counts."""
        latest = dict(sorted(zip(stamps_ns, poses, strict=True), key=lambda item: item[0]))
        matrices = np.array(list(latest.values()), dtype=np.float64).reshape(-1, 4, 4)
        return cls(np.array(list(latest), dtype=np.int64), matrices)

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def at(self, stamp_ns: int, max_gap_s: float = 0.5) -> Matrix | None:
        """Return T_map_base (4, 4) at a stamp, interpolated between its two neighbours.

        None outside the trajectory, and inside gaps longer than max_gap_s.
        """
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if 0 < after < len(self):
            start, end = (int(stamp) for stamp in self.stamps_ns[after - 1 : after + 1])
            if end - start <= max_gap_s * NS_PER_S:
                fraction = (stamp_ns - start) / (end - start)
                T_0, T_1 = self.T_map_base[after - 1 : after + 1]
                return se3.interpolate(T_0, T_1, fraction)
        for i in range(max(after - 1, 0), min(after + 1, len(self))):
            if abs(int(self.stamps_ns[i]) - stamp_ns) <= SAME_INSTANT_NS:
                return self.T_map_base[i].copy()
        return None


def associate(a_ns: Stamps, b_ns: Stamps, tolerance_s: float) -> tuple[Stamps, Stamps]:
    """Match stamps of a and b; return indices (M,) into each. Each stamp is used at most once.

    Both must be sorted; partners are nearest neighbours at most tolerance_s apart.
    """
    if len(a_ns) == 0 or len(b_ns) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    after = np.searchsorted(b_ns, a_ns).clip(0, len(b_ns) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(a_ns - b_ns[before] < np.abs(b_ns[after] - a_ns), before, after)
    gap_ns = np.abs(a_ns - b_ns[nearest])
    by_partner = np.lexsort((gap_ns, nearest))
    by_partner = by_partner[gap_ns[by_partner] <= tolerance_s * NS_PER_S]
    partners, first = np.unique(nearest[by_partner], return_index=True)
    return by_partner[first], partners


def read_tum(path: str | Path) -> Trajectory:
    """Read a TUM file. Raises DataError naming the wrong line."""
    stamps_ns: list[int] = []
    poses: list[Matrix] = []
    for where, words in _rows(path, TUM_COLUMNS):
        stamp_ns = _stamp_ns(where, words[0])
        if stamps_ns and stamp_ns <= stamps_ns[-1]:
            raise DataError(f"{where}: stamp {words[0]} is not after the one before; sort the file")
        values = _numbers(where, words[1:])
        stamps_ns.append(stamp_ns)
        poses.append(_pose(where, values[3:], values[:3]))
    if not poses:
        raise DataError(f"{path}: holds no poses; expected lines `{TUM_COLUMNS}`")
    return Trajectory(np.array(stamps_ns, dtype=np.int64), np.stack(poses))


def write_tum(path: str | Path, trajectory: Trajectory) -> None:
    """Write a TUM file with nanosecond stamps, atomically."""
    poses = zip(trajectory.stamps_ns.tolist(), trajectory.T_map_base, strict=True)
    write_text(path, TUM_HEADER + "".join(tum_line(stamp_ns, T) for stamp_ns, T in poses))


def tum_line(stamp_ns: int, T_map_base: Matrix) -> str:
    """Return one line of a TUM file."""
    return (
        f"{format_stamp(stamp_ns)} {_words(T_map_base[:3, 3])} "
        f"{_words(se3.quat_xyzw(T_map_base))}\n"
    )


def read_poses(path: str | Path) -> dict[str, Matrix]:
    """Read named poses T_cam_map (4, 4) in file order. Raises DataError naming the wrong line."""
    poses: dict[str, Matrix] = {}
    for where, words in _rows(path, POSES_COLUMNS, maxsplit=7):
        if words[0] in poses:
            raise DataError(f"{where}: image {words[0]} has a pose already; keep one of them")
        values = _numbers(where, words[1:])
        poses[words[0]] = _pose(where, np.roll(values[:4], -1), values[4:])
    if not poses:
        raise DataError(f"{path}: holds no poses; expected lines `{POSES_COLUMNS}`")
    return poses


def write_poses(path: str | Path, T_cam_map: Mapping[str, Matrix]) -> None:
    """Write named poses, atomically."""
    lines = (
        f"{name} {_words(se3.qvec_wxyz(T))} {_words(T[:3, 3])}\n" for name, T in T_cam_map.items()
    )
    write_text(path, f"# {POSES_COLUMNS} (T_cam_map)\n" + "".join(lines))


def has_named_poses(path: str | Path) -> bool:
    """Return whether the first pose of a file begins with a name rather than with a time."""
    _, words = next(_rows(path, POSES_COLUMNS, maxsplit=7), ("", ["0"]))
    try:
        float(words[0])
    except ValueError:
        return True
    return False


def format_stamp(stamp_ns: int) -> str:
    """Return a stamp in seconds with nine decimals, without floating-point rounding."""
    sign, rest = ("-", -stamp_ns) if stamp_ns < 0 else ("", stamp_ns)
    return f"{sign}{rest // NS_PER_S}.{rest % NS_PER_S:09d}"


def _words(values: ArrayLike) -> str:
    return " ".join(f"{value:.9f}" for value in np.asarray(values))


def _rows(path: str | Path, columns: str, maxsplit: int = -1) -> Iterator[tuple[str, list[str]]]:
    """Yield location and words of each line; the name comes first and may contain blanks."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DataError(f"cannot read poses from {path}: {reason}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.strip().rsplit(maxsplit=maxsplit)
        if len(words) != len(columns.split()):
            raise DataError(f"{path}:{number}: expected `{columns}`, got {len(words)} words")
        yield f"{path}:{number}", words


def _stamp_ns(where: str, word: str) -> int:
    try:
        stamp_s = Decimal(word)
        if abs(stamp_s) > MAX_STAMP_S:
            raise ValueError
        return int((stamp_s * NS_PER_S).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        raise DataError(f"{where}: '{word}' is not a stamp in seconds") from None


def _numbers(where: str, words: Sequence[str]) -> Matrix:
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    if not np.isfinite(values).all():
        raise DataError(f"{where}: pose is not finite; remove the line")
    return values


def _pose(where: str, quat_xyzw: Matrix, translation: Matrix) -> Matrix:
    norm = float(np.linalg.norm(quat_xyzw))
    if abs(norm - 1.0) > NORM_TOLERANCE:
        raise DataError(f"{where}: quaternion has norm {norm:.3g}, expected 1; check the columns")
    return se3.from_quat_xyzw(quat_xyzw, translation)
