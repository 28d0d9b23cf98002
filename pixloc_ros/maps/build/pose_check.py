"""Do given poses agree with what the images show? Checked by epipolar geometry, pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix

Mask = NDArray[np.bool_]
MAX_ERROR_PX = 4.0  # from the epipolar line
MIN_MATCHES = 15  # a pair with fewer says nothing
MIN_SHARE = 0.5  # of a pair's matches that must be near their lines
MIN_AGREEMENT = 0.5  # of an image's pairs that must fit
MIN_POINTS_SHARE = 0.4  # of the usual share of matched keypoints that become points
SHOWN = 5  # names in an error

# What people give instead of T_map_cam, and how it would be mended.
CONVENTIONS: dict[str, Callable[[Matrix], Matrix]] = {
    "they seem to be inverted: give camera-to-world poses": se3.inverse,
    "they seem to be of axes x forward, y left, z up: give those of the optical frame": (
        lambda T: T @ se3.base_from_optical()
    ),
    "they seem to have axes x right, y up, z backward (OpenGL): turn them by 180 degrees about x": (
        lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0])
    ),
    "they seem to be of optical axes already: leave out the camera mount": (
        lambda T: T @ se3.inverse(se3.base_from_optical())
    ),
}


@dataclass(frozen=True, slots=True)
class Matches:
    """What two images share: rays (N, 2) in the normalised image plane, z = 1."""

    first: int
    second: int
    rays_first: Matrix
    rays_second: Matrix
    focal_px: float


def check(names: Sequence[str], T_map_cam: Matrix, matches: Sequence[Matches]) -> None:
    """Raise MapError that names the images whose poses (N, 4, 4) contradict the matches.

    Where most do, it says which other convention would fit.
    """
    usable = [pair for pair in matches if len(pair.rays_first) >= MIN_MATCHES]
    if not usable:
        raise MapError(
            "no two posed images share what they see; are the images of one place, and the poses "
            "theirs?"
        )
    fits = _fits(T_map_cam, usable)
    unfit = _unfit(len(names), usable, fits)
    if not unfit:
        return
    if fits.mean() < MIN_SHARE:
        raise MapError(f"the poses do not fit the images: {_diagnosis(T_map_cam, usable)}")
    _refuse(names, unfit)


def check_points(names: Sequence[str], matches: Sequence[Matches], seen: Sequence[int]) -> None:
    """Raise MapError that names images of whose matched keypoints far fewer became points.

    A pose that is wrong along the way, or by little, fits its epipolar lines; points that others
    triangulated then do not fit it. seen: (N,) points that each image sees.
    """
    matched = np.array([_keypoints_matched(i, matches) for i in range(len(names))])
    shares = np.asarray(seen) / np.maximum(matched, 1)
    usable = matched >= MIN_MATCHES
    bad = np.flatnonzero(usable & (shares < MIN_POINTS_SHARE * np.median(shares[usable])))
    if len(bad):
        _refuse(names, bad.tolist())


def _keypoints_matched(image: int, matches: Sequence[Matches]) -> int:
    """Distinct keypoints of an image that are matched in any pair."""
    rays = [pair.rays_first for pair in matches if pair.first == image]
    rays += [pair.rays_second for pair in matches if pair.second == image]
    return len(np.unique(np.concatenate(rays), axis=0)) if rays else 0


def _refuse(names: Sequence[str], unfit: Sequence[int]) -> NoReturn:
    listed = ", ".join(f"'{names[i]}'" for i in unfit[:SHOWN])
    raise MapError(
        f"poses of {len(unfit)} of {len(names)} images do not fit what the images show: "
        f"{listed}{', ...' if len(unfit) > SHOWN else ''}; correct them or leave them out"
    )


def _fits(T_map_cam: Matrix, matches: Sequence[Matches]) -> Mask:
    """(P,) whether the poses explain each pair."""
    return np.array([_share(T_map_cam, pair) >= MIN_SHARE for pair in matches])


def _share(T_map_cam: Matrix, pair: Matches) -> float:
    T = se3.inverse(T_map_cam[pair.second]) @ T_map_cam[pair.first]
    first, second = (
        np.column_stack([rays, np.ones(len(rays))]) for rays in (pair.rays_first, pair.rays_second)
    )
    near_line = epipolar_errors(T, first, second) * pair.focal_px < MAX_ERROR_PX
    return float((near_line & _in_front(T, first, second, 1.0 / pair.focal_px)).mean())


def _in_front(T_second_first: Matrix, first: Matrix, second: Matrix, tolerance: float) -> Mask:
    """(N,) whether rays meet before both cameras; those that are all but parallel do."""
    turned, t = first @ T_second_first[:3, :3].T, T_second_first[:3, 3]
    normal = np.cross(turned, second)  # of the triangle of point and cameras
    far = np.linalg.norm(normal, axis=-1) < tolerance
    depth_first = (np.cross(t, second) * -normal).sum(-1)
    depth_second = (np.cross(turned, t) * normal).sum(-1)
    return far | ((depth_first > 0) & (depth_second > 0))


def epipolar_errors(T_second_first: Matrix, first: Matrix, second: Matrix) -> Matrix:
    """Sampson distance (N,) of matched rays (N, 3), z = 1, in the normalised image plane."""
    x, y, z = T_second_first[:3, 3]
    E = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T_second_first[:3, :3]
    lines_second, lines_first = first @ E.T, second @ E
    algebraic = (second * lines_second).sum(-1)
    slope = (lines_second[:, :2] ** 2).sum(-1) + (lines_first[:, :2] ** 2).sum(-1)
    return np.abs(algebraic) / np.sqrt(np.maximum(slope, 1e-24))


def _unfit(count: int, matches: Sequence[Matches], fits: Mask) -> list[int]:
    """Images most of whose pairs do not fit; the worst first, whose pairs then blame no other."""
    first, second = (np.array([getattr(p, side) for p in matches]) for side in ("first", "second"))
    open_pairs = np.ones(len(matches), bool)
    unfit: list[int] = []
    while True:
        ends = np.concatenate([first[open_pairs], second[open_pairs]])
        pairs = np.bincount(ends, minlength=count)
        good = np.bincount(ends, np.tile(fits[open_pairs], 2), minlength=count)
        agreement = np.where(pairs > 0, good / np.maximum(pairs, 1), 1.0)
        worst = int(agreement.argmin())
        if agreement[worst] >= MIN_AGREEMENT:
            return sorted(unfit)
        unfit.append(worst)
        open_pairs &= (first != worst) & (second != worst)


def _diagnosis(T_map_cam: Matrix, matches: Sequence[Matches]) -> str:
    shares = {
        advice: _fits(np.stack([mend(T) for T in T_map_cam]), matches).mean()
        for advice, mend in CONVENTIONS.items()
    }
    best = max(shares, key=lambda advice: shares[advice])
    if shares[best] > MIN_SHARE:
        return best
    return "are they in the order of the images, and is the calibration right?"
