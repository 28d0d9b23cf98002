"""Whether a pose is believed: the probability that it is wrong, and a few limits beyond doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pixloc_ros.alignment.evidence import EvidenceGatherer
from pixloc_ros.alignment.wrong_probability import REASONS, WORDS, VerificationModel
from pixloc_ros.config import AcceptanceConfig, CovarianceConfig
from pixloc_ros.geometry import covariance as cov
from pixloc_ros.geometry import se3
from pixloc_ros.maps.schema import Calibration, MapMetadata
from pixloc_ros.types import Alignment, Evidence, Matrix, PosePrior, ProtectionLevel, Reason

TYPICAL_SHARPNESS = 0.46  # of clear images: there the covariance is as alignment and scale have it
LEAST_SHARPNESS = 0.05
HOPELESS = 0.999  # nothing that the halves could say makes such a pose believable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of a pose, and what it rests on."""

    reason: Reason
    message: str
    wrong_probability: float = 1.0
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pose of the vehicle with its covariance (6, 6) in ROS order, and the prior it came from."""

    T_map_base: Matrix
    covariance: Matrix
    prior: PosePrior

    @property
    def sigmas_from_prior(self) -> float:
        """Mahalanobis distance from the prior."""
        error = cov.base_error(self.T_map_base, self.prior.T_map_base)
        return float(np.sqrt(cov.mahalanobis2(error, self.prior.covariance + self.covariance)))


def verify(
    candidate: Candidate,
    gatherer: EvidenceGatherer,
    model: VerificationModel,
    config: AcceptanceConfig,
) -> Verdict:
    """Tell whether a pose is believed, by all the evidence that it takes to tell.

    The halves are asked only where the other evidence leaves it open, as they take longest.
    """
    alignment = gatherer.alignment
    if not (np.isfinite(alignment.cost) and np.isfinite(candidate.covariance).all()):
        message = "no initial pose kept enough points in view with a solvable system"
        return Verdict(Reason.NON_FINITE, message)
    evidence = gatherer.evidence()
    is_open = config.max_wrong_probability < model.plain(evidence) < HOPELESS
    if is_open or config.always_compare_halves:
        evidence = replace(evidence, halves_px=gatherer.halves_px())
    return judge(candidate, alignment, evidence, model, config)


def judge(
    candidate: Candidate,
    alignment: Alignment,
    evidence: Evidence,
    model: VerificationModel,
    config: AcceptanceConfig,
) -> Verdict:
    """Tell whether a pose is believed: the first limit that it fails, or what the evidence says."""
    probability = model.wrong_probability(evidence, config.max_wrong_probability)
    doubts = _doubts(candidate, alignment, evidence, probability, model, config)
    reason, message = next(doubts, (Reason.OK, f"wrong with probability {probability:.1g}"))
    return Verdict(reason, message, probability, evidence)


def _doubts(
    candidate: Candidate,
    alignment: Alignment,
    evidence: Evidence,
    probability: float,
    model: VerificationModel,
    config: AcceptanceConfig,
) -> Iterator[tuple[Reason, str]]:
    if not alignment.converged:
        yield Reason.NOT_CONVERGED, f"still moving after {alignment.iterations[-1]} iterations"
    if alignment.cost > config.max_cost:
        yield Reason.HIGH_COST, f"cost {alignment.cost:.2f} above {config.max_cost:.2f}"
    if alignment.condition > config.max_condition:
        yield Reason.ILL_CONDITIONED, f"condition {alignment.condition:.1e} of the Hessian"
    distance = candidate.sigmas_from_prior
    if distance > config.max_sigma_from_prior:
        source = candidate.prior.source
        yield Reason.FAR_FROM_PRIOR, f"{distance:.1f} sigma away from the {source} prior"
    if probability > config.max_wrong_probability:
        name = model.weightiest(evidence)
        yield REASONS[name], f"{WORDS[name](evidence)}; wrong with probability {probability:.2g}"
    if evidence.runner_up_loss < config.min_runner_up_loss:
        loss = f"{100 * evidence.runner_up_loss:.0f} %"
        yield Reason.AMBIGUOUS, f"another pose loses only {loss} of the fit"


def protection_level(covariance: Matrix, model: VerificationModel) -> ProtectionLevel:
    """The largest sigma of the position in any direction, times a fitted factor.

    covariance: (6, 6) in ROS order.
    """
    largest_m = float(np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1]))
    return ProtectionLevel(model.protection_factor * largest_m, model.protection_risk)


def base_pose_and_covariance(
    alignment: Alignment,
    T_base_cam: Matrix,
    calibration: Calibration,
    sharpness: float = TYPICAL_SHARPNESS,
) -> tuple[Matrix, Matrix]:
    """T_map_base (4, 4) and its calibrated covariance (6, 6) in ROS order.

    sharpness: that of the evidence, which tells blurred images.
    """
    T_map_base = alignment.T_map_cam @ se3.inverse(T_base_cam)
    covariance = cov.base_covariance_from_cam(alignment.covariance_cam, T_map_base, T_base_cam)
    covariance *= calibration.scale * covariance_factor(sharpness)
    covariance += map_covariance(alignment, T_map_base, T_base_cam)
    sigmas = np.concatenate([calibration.floor_m, np.deg2rad(calibration.floor_deg)])
    return T_map_base, covariance + cov.floor_along_base(sigmas, T_map_base)


def map_covariance(alignment: Alignment, T_map_base: Matrix, T_base_cam: Matrix) -> Matrix:
    """Covariance (6, 6), ROS order, that uncertain depths of the map's points cause."""
    own = alignment.map_covariance_cam
    if own is None:
        return np.zeros((6, 6))
    return cov.base_covariance_from_cam(own, T_map_base, T_base_cam)


def covariance_factor(sharpness: float) -> float:
    """How much larger the variance is than alignment has it, by the sharpness of the evidence.

    In blurred images neighbouring points err together, farther than the covariance of the
    alignment assumes. The exponent is fitted: docs/lab/covariance.md.
    """
    return float((TYPICAL_SHARPNESS / np.clip(sharpness, LEAST_SHARPNESS, 1.0)) ** 1.5)


def calibration_of(map_: MapMetadata, config: CovarianceConfig) -> Calibration:
    """The map's own calibration, or the configured one where the map has none."""
    if map_.calibration is not None and config.from_map:
        return map_.calibration
    return Calibration(
        scale=config.scale,
        floor_m=(config.floor_m,) * 3,
        floor_deg=(config.floor_deg,) * 3,
        frames=0,
    )
