"""Single shots: localize single frames from random wrong priors, to see how wrong they may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.evaluation.degradation import degradation
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.covariance import diagonal, perturb_base
from pixloc_ros.maps.files.posed_images import PosedImages, read_image
from pixloc_ros.types import Estimate, Frame, PosePrior

STILL_M, STILL_DEG = 0.1, 0.3  # sigmas of a prior in dimensions without an error
CLEAN = "clean"  # no degradation


class Localizes(Protocol):
    """The localizer, or a baseline."""

    def localize(self, frame: Frame, prior: PosePrior | None) -> Estimate: ...


@dataclass(frozen=True, slots=True)
class Offset:
    """The error of a prior: of exactly this size, in a random direction.

    planar: on the ground and about the vertical, as for a vehicle; otherwise in all six dimensions.
    claimed: the offset that the prior's covariance describes; None: this one, so that it is honest.
    In dimensions without an error it has a small sigma.
    """

    distance_m: float
    angle_deg: float
    planar: bool = True
    claimed: Offset | None = None

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw an error (6,) in ROS order."""
        translation, axis = rng.standard_normal((2, 3))
        if self.planar:
            translation[2] = axis[0] = axis[1] = 0.0
        rotation = np.deg2rad(self.angle_deg) * axis / np.linalg.norm(axis)
        return np.concatenate(
            [self.distance_m * translation / np.linalg.norm(translation), rotation]
        )

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance (6, 6) in ROS order."""
        if self.claimed is not None:
            return self.claimed.covariance()
        translation, rotation = ([1, 1, 0], [0, 0, 1]) if self.planar else ([1] * 3, [1] * 3)
        shares = np.array([*translation, *rotation]) / np.repeat(
            [sum(translation), sum(rotation)], 3
        )
        offset = np.repeat([self.distance_m, np.deg2rad(self.angle_deg)], 3)
        return np.diag(shares * offset**2) + diagonal(STILL_M, STILL_DEG)

    def prior(
        self, T_map_base: NDArray[np.float64], stamp_ns: int, rng: np.random.Generator
    ) -> PosePrior:
        """Return a prior that is off by this much from a true pose (4, 4), with its covariance."""
        return PosePrior(
            perturb_base(T_map_base, self.draw(rng)), self.covariance(), "shot", stamp_ns
        )


@dataclass(frozen=True, slots=True)
class Shot:
    """One attempt, and how far its result is from the truth."""

    estimate: Estimate
    error_m: float  # of the candidate, accepted or not; inf if there is none
    error_deg: float


def posed_frames(
    drive: PosedImages, index: Sequence[int], degrade: str = CLEAN, seed: int = 0
) -> Iterator[tuple[Frame, NDArray[np.float64]]]:
    """Read frames of a drive one by one with their true T_map_base, degraded if wanted.

    Raises MapError for an unreadable image or one whose size is not its camera's, and ConfigError
    for an unknown degradation.
    """
    for i in index:
        path = drive.files[i]
        image_rgb = read_image(path, drive.cameras[i])
        if degrade != CLEAN:
            image_rgb = degradation(degrade)(image_rgb, np.random.default_rng((seed, i)))
        stamp_ns = int(drive.stamps_ns[i])
        frame = Frame(image_rgb, drive.cameras[i], stamp_ns, drive.T_base_cam, path.name)
        yield frame, drive.T_map_base[i]


def shoot(
    localizer: Localizes,
    frames: Iterable[tuple[Frame, NDArray[np.float64]]],
    offset: Offset | None,
    shots_per_frame: int = 1,
    seed: int = 0,
) -> Iterator[Shot]:
    """Localize frames, given with their true T_map_base, from priors drawn by `offset`.

    offset: None: without a prior, searching the whole map.
    """
    rng = np.random.default_rng(seed)
    for frame, T_map_base in frames:
        for _ in range(shots_per_frame):
            prior = None
            if offset is not None:
                prior = offset.prior(T_map_base, frame.stamp_ns, rng)
            yield _measure(localizer.localize(frame, prior), T_map_base)


def shoot_elsewhere(
    localizer: Localizes,
    frames: Iterable[tuple[Frame, NDArray[np.float64]]],
    T_map_cam: NDArray[np.float64],
    offset: Offset | None,
    shots_per_frame: int = 1,
    seed: int = 0,
) -> Iterator[Shot]:
    """Localize frames of another place, from priors at random camera poses T_map_cam (N, 4, 4).

    Any result is wrong, with an infinite error. The poses given with the frames are not used.
    """
    rng = np.random.default_rng(seed)
    for frame, _ in frames:
        for _ in range(shots_per_frame):
            T_map_base = T_map_cam[rng.integers(len(T_map_cam))] @ se3.inverse(frame.T_base_cam)
            prior = None if offset is None else offset.prior(T_map_base, frame.stamp_ns, rng)
            yield Shot(localizer.localize(frame, prior), float("inf"), float("inf"))


def _measure(estimate: Estimate, T_map_base: NDArray[np.float64]) -> Shot:
    found = estimate.candidate_T_map_base
    if found is None:
        return Shot(estimate, float("inf"), float("inf"))
    return Shot(estimate, se3.distance_m(found, T_map_base), se3.angle_deg(found, T_map_base))


@dataclass(frozen=True, slots=True)
class ShotSummary:
    """Figures of many shots. Shares are of all; `found` counts candidates, `ok` accepted poses."""

    shots: int
    found_10cm: float  # within 0.1 m and 0.5 deg
    found_25cm: float  # within 0.25 m and 2 deg
    ok_10cm: float
    ok: float
    false_accepts: int  # accepted with an error above 0.5 m
    median_m: float
    median_deg: float
    median_ms: float


def summarize(shots: Sequence[Shot]) -> ShotSummary:
    """Compute the figures of many shots."""
    error_m = np.array([shot.error_m for shot in shots])
    error_deg = np.array([shot.error_deg for shot in shots])
    ok = np.array([shot.estimate.ok for shot in shots])
    within_10cm = (error_m < 0.1) & (error_deg < 0.5)
    return ShotSummary(
        shots=len(shots),
        found_10cm=float(within_10cm.mean()),
        found_25cm=float(((error_m < 0.25) & (error_deg < 2)).mean()),
        ok_10cm=float((within_10cm & ok).mean()),
        ok=float(ok.mean()),
        false_accepts=int((ok & (error_m > 0.5)).sum()),
        median_m=float(np.median(error_m)),
        median_deg=float(np.median(error_deg)),
        median_ms=float(np.median([sum(s.estimate.timing_ms.values()) for s in shots])),
    )
