"""Lens distortion in torch, with its analytic Jacobian: one function for all camera models.

A model maps points (u, v) in the plane at depth 1 to where the lens shows them in that plane.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pixloc_ros.geometry.se3 import Matrix

FISHEYE = "OPENCV_FISHEYE"  # may see sideways and backwards, which the plane at depth 1 cannot hold
COEFFICIENTS = {"PINHOLE": 0, "RADIAL": 2, "OPENCV": 4, "FULL_OPENCV": 8, FISHEYE: 4}

NEGLIGIBLE = 1e-100  # a leading coefficient of a polynomial below this counts as zero


def distort(
    model: str, coefficients: Tensor, uv: Tensor, want_jacobian: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Distort points (..., N, 2) by the coefficients (..., D) of a model.

    Also returns the squared radius (fisheye: squared angle) (..., N), and the Jacobian (..., N, 2,
    2) if wanted.
    """
    r2 = (uv * uv).sum(-1)
    k = [each[..., None] for each in coefficients.unbind(-1)]
    if model == FISHEYE:
        factor, slope, radius2 = _fisheye(k, r2)
    else:
        (factor, slope), radius2 = _radial(k, r2), r2
    distorted = uv * factor[..., None]
    J = None
    if want_jacobian:
        eye = torch.eye(2, dtype=uv.dtype, device=uv.device)
        outer = 2 * uv[..., :, None] * uv[..., None, :]
        J = factor[..., None, None] * eye + slope[..., None, None] * outer
    if model in ("OPENCV", "FULL_OPENCV"):
        distorted, J = _add_tangential(k, uv, r2, distorted, J)
    return distorted, radius2, J


def one_to_one_limit(model: str, d: Matrix) -> float:
    """Return the squared radius (angle) at the first fold of the radial distortion; inf if none."""
    P = np.polynomial.Polynomial
    if model == "PINHOLE":
        return np.inf
    if model == FISHEYE:
        fold = P(np.concatenate([[1.0], d * np.array([3, 5, 7, 9])]))
    else:
        N, D = P([1.0, d[0], d[1]]), P([1.0])
        if model == "FULL_OPENCV":
            N, D = P([1.0, d[0], d[1], d[4]]), P([1.0, *d[5:8]])
        # d(r N/D)/dr is zero at a root of this polynomial of r^2; a pole of D lies beyond a fold.
        fold = (N * D + P([0.0, 2.0]) * (N.deriv() * D - N * D.deriv())) * D
    roots = fold.trim(NEGLIGIBLE).roots()
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(min(real[real > 1e-9], default=np.inf))


def _radial(k: Sequence[Tensor], r2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the radial factor N/D (Brown-Conrady or rational) and its derivative by r2."""
    N, dN = _cubic([k[0], k[1], k[4] if len(k) > 4 else torch.zeros_like(k[0])], r2)
    if len(k) <= 4:
        return N, dN
    D, dD = _cubic(k[5:8], r2)
    return N / D, (dN * D - N * dD) / (D * D)


def _fisheye(k: Sequence[Tensor], r2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for Kannala-Brandt, the factor theta_d / r, its derivative by r2, and theta^2."""
    r2 = r2.clamp(min=1e-12)  # avoids 0/0 on the axis, where the limit exists
    r = r2.sqrt()
    theta = torch.atan(r)
    t2 = theta * theta
    poly = 1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))
    slope = 1 + t2 * (3 * k[0] + t2 * (5 * k[1] + t2 * (7 * k[2] + t2 * 9 * k[3])))
    factor = theta * poly / r
    return factor, (slope / (1 + r2) - factor) / (2 * r2), t2


def _add_tangential(
    k: Sequence[Tensor], uv: Tensor, r2: Tensor, distorted: Tensor, J: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    p1, p2 = k[2:4]
    u, v = uv.unbind(-1)
    du = 2 * p1 * u * v + p2 * (r2 + 2 * u * u)
    dv = 2 * p2 * u * v + p1 * (r2 + 2 * v * v)
    if J is not None:
        cross = 2 * p1 * u + 2 * p2 * v
        rows = [2 * p1 * v + 6 * p2 * u, cross, cross, 2 * p2 * u + 6 * p1 * v]
        J = J + torch.stack(rows, -1).unflatten(-1, (2, 2))
    return distorted + torch.stack([du, dv], -1), J


def _cubic(k: Sequence[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    value = 1 + x * (k[0] + x * (k[1] + x * k[2]))
    return value, k[0] + x * (2 * k[1] + x * 3 * k[2])
