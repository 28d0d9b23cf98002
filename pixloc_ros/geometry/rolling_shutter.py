"""A camera that moves while its rows are read, one after the other."""

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
    """How a camera moves from one row of its image to the next: evenly.

    The camera of row r is at T_stamp_row = exp((r - stamp_row) twist). twist: (..., 6) metres and
    radians per row, in the camera's frame. stamp_row: (...), the row that is exposed at the stamp
    of the image, of which the pose is.
    """

    twist: Tensor
    stamp_row: Tensor

    @classmethod
    def of_motion(cls, T_first_last: Matrix, height: int, stamp_share: float) -> RollingShutter:
        """The motion (4, 4) of the camera from its first row to its last, of `height` rows.

        stamp_share: when the stamp is: 0 at the first row, 1 at the last.
        """
        steps = max(1, height - 1)
        twist = torch.from_numpy(twist_of(T_first_last) / steps)
        return cls(twist, torch.tensor(stamp_share * steps, dtype=torch.float64))

    @classmethod
    def stack(cls, shutters: Sequence[RollingShutter]) -> RollingShutter:
        """Batch (B,)."""
        twists, rows = ([getattr(s, name) for s in shutters] for name in ("twist", "stamp_row"))
        return cls(torch.stack(twists), torch.stack(rows))

    def points_at(self, points_cam: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where points (..., N, 3) of the camera at the stamp are for the camera of rows (..., N).

        And how they move from there to the next row. exp(-s twist) p to the second order in the
        rows s from the stamp: a turn of 0.1 rad errs by 2e-4 rad.
        """
        s = (rows - self.stamp_row[..., None])[..., None]
        step, turn = self.twist[..., None, :3], skew(self.twist[..., 3:])
        velocity = step + points_cam @ turn.mT
        curvature = velocity @ turn.mT
        return points_cam + s * (0.5 * s * curvature - velocity), s * curvature - velocity

    def scale(self, factor: Tensor) -> RollingShutter:
        """That of the image whose rows are resized by a factor."""
        return RollingShutter(self.twist / factor, (self.stamp_row + 0.5) * factor - 0.5)

    def crop(self, top: float) -> RollingShutter:
        """That of a cut-out which begins at row `top`."""
        return RollingShutter(self.twist, self.stamp_row - top)

    def each(self, change: Callable[[Tensor], Tensor]) -> RollingShutter:
        """The same with each of its tensors changed."""
        return RollingShutter(change(self.twist), change(self.stamp_row))


def twist_of(T: Matrix) -> Matrix:
    """The twist (6,) whose exponential is a small motion (4, 4).

    By the series of the inverse left Jacobian; the next term is of the fourth order in the angle.
    """
    turn = Rotation.from_matrix(T[:3, :3]).as_rotvec()
    way = T[:3, 3]
    sideways = np.cross(turn, way)
    return np.concatenate([way - sideways / 2 + np.cross(turn, sideways) / 12, turn])
