"""Model a camera that moves while the rows of its image are read one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from pixloc_ros.geometry.pose import skew
from pixloc_ros.geometry.se3 import Matrix


@dataclass(frozen=True, slots=True)
class RollingShutter:
    """Uniform motion of a camera from one row of its image to the next.

    The camera at row r is at T_stamp_row = exp((r - stamp_row) twist).

    twist: (..., 6) metres and radians per row, in the camera's frame.
    stamp_row: (...) the row exposed at the image's stamp, to which the pose refers.
    """

    twist: Tensor
    stamp_row: Tensor

    @classmethod
    def of_motion(cls, T_first_last: Matrix, height: int, stamp_share: float) -> RollingShutter:
        """Convert the camera's motion (4, 4) from its first to its last row; `height` rows in all.

        stamp_share: when the stamp is taken: 0 at the first row, 1 at the last.
        """
        return cls.of_twist(twist_of(T_first_last), height, stamp_share)

    @classmethod
    def of_twist(cls, twist: Matrix, height: int, stamp_share: float) -> RollingShutter:
        """The same for a motion given as the twist (6,) from the first to the last row."""
        steps = max(1, height - 1)
        stamp_row = torch.tensor(stamp_share * steps, dtype=torch.float64)
        return cls(torch.from_numpy(twist / steps), stamp_row)

    @classmethod
    def stack(cls, shutters: Sequence[RollingShutter]) -> RollingShutter:
        """Make a batch (B,)."""
        twists, rows = ([getattr(s, name) for s in shutters] for name in ("twist", "stamp_row"))
        return cls(torch.stack(twists), torch.stack(rows))

    def points_at(self, points_cam: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Move points (..., N, 3) from the camera frame at the stamp to that at rows (..., N).

        Also returns how the points move from there to the next row. exp(-s twist) p is expanded to
        second order in s, the number of rows from the stamp: for a rotation of 0.1 rad the error is
        2e-4 rad.
        """
        s = (rows - self.stamp_row[..., None])[..., None]
        step, turn = self.twist[..., None, :3], skew(self.twist[..., 3:])
        velocity = step + points_cam @ turn.mT
        curvature = velocity @ turn.mT
        return points_cam + s * (0.5 * s * curvature - velocity), s * curvature - velocity

    def scale(self, factor: Tensor) -> RollingShutter:
        """Return the shutter of the image whose rows are resized by a factor."""
        return RollingShutter(self.twist / factor, (self.stamp_row + 0.5) * factor - 0.5)

    def crop(self, top: float) -> RollingShutter:
        """Return the shutter of a crop that begins at row `top`."""
        return RollingShutter(self.twist, self.stamp_row - top)

    def each(self, change: Callable[[Tensor], Tensor]) -> RollingShutter:
        """Return a copy with each tensor changed."""
        return RollingShutter(change(self.twist), change(self.stamp_row))


def twist_of(T: Matrix) -> Matrix:
    """Return the twist (6,) whose exponential is a small motion (4, 4).

    Uses the series of the inverse left Jacobian; the first neglected term is of fourth order in the
    angle.
    """
    turn = Rotation.from_matrix(T[:3, :3]).as_rotvec()
    way = T[:3, 3]
    sideways = np.cross(turn, way)
    return np.concatenate([way - sideways / 2 + np.cross(turn, sideways) / 12, turn])
