"""Frames that cannot be localized, and why: told before anything is aligned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from pixloc_ros.alignment.problems import AlignmentProblem, ImageFeatures, ViewSelector
from pixloc_ros.errors import DataError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.covariance import sigmas_and_correlations
from pixloc_ros.maps.map import Map
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status

Value = TypeVar("Value")


class CannotLocalize(Exception):
    """There is nothing to align, for this reason: an expected end of `Localizer.localize`."""

    def __init__(self, reason: Reason, message: str):
        super().__init__(message)
        self.reason, self.message = reason, message


def failed(frame: Frame, reason: Reason, message: str, priors: Sequence[PosePrior]) -> Estimate:
    """What is answered for a frame that cannot be localized."""
    prior = priors[0] if len(priors) == 1 else None
    return Estimate(Status.FAILED, reason, message, frame.stamp_ns, frame.name, prior=prior)


def given_frames(given: object) -> list[Frame]:
    """Return one or several frames as a list.

    Raises DataError for anything else, and for a mounting that is not a pose.
    """
    frames = _listed("frame", Frame, given)
    for frame in frames:
        if not isinstance(frame.camera, Camera):
            kind = type(frame.camera).__name__
            raise DataError(f"camera of the frame is a {kind}, expected Camera.create(...)")
        _check_stamp("frame", frame.stamp_ns)
        _check_pose("T_base_cam of the frame", frame.T_base_cam)
    return frames


def given_priors(given: object) -> list[PosePrior]:
    """Return one or several priors as a list.

    Raises DataError for anything else, and for one that is not a pose with a covariance.
    """
    priors = _listed("prior", PosePrior, given)
    for prior in priors:
        _check_stamp("prior", prior.stamp_ns)
        _check_pose("T_map_base of the prior", prior.T_map_base)
        shape = np.shape(prior.covariance)
        if shape != (6, 6):
            raise DataError(f"covariance of the prior is {shape}, expected (6, 6)")
        try:
            sigmas_and_correlations(np.asarray(prior.covariance, np.float64))
        except DataError as error:
            raise DataError(f"covariance of the prior: {error}") from None
    return priors


def _listed(what: str, kind: type[Value], given: object) -> list[Value]:
    found: list[Value] = []
    for each in given if isinstance(given, Sequence) else [given]:
        if not isinstance(each, kind):
            raise DataError(f"a {what} is a {type(each).__name__}, expected {kind.__name__}")
        found.append(each)
    return found


def _check_stamp(what: str, stamp_ns: object) -> None:
    if not isinstance(stamp_ns, int | np.integer):
        raise DataError(f"stamp_ns of the {what} is {stamp_ns!r}, expected whole nanoseconds")


def _check_pose(what: str, T: se3.Matrix) -> None:
    try:
        rigid = se3.is_rigid(T)
    except (TypeError, ValueError):  # no numbers, or rows of unequal length
        rigid = False
    if not rigid:
        raise DataError(
            f"{what} is not a pose: expected finite numbers (4, 4) with a proper rotation"
        )


def usable_frames(
    frames: Sequence[Frame], priors: Sequence[PosePrior], views: ViewSelector
) -> list[Frame]:
    """Keep the frames worth aligning; raises CannotLocalize where there is none.

    With exactly one prior the view of every frame is checked. Otherwise only the image is, and
    the first frame must pass, because its image says where to search.
    """
    refusals = [_unusable(frame, priors, views) for frame in frames]
    if refusals[0] and (all(refusals) or len(priors) != 1):
        raise CannotLocalize(*refusals[0])
    return [frame for frame, refusal in zip(frames, refusals, strict=True) if not refusal]


def alignment_problems(
    images: Sequence[ImageFeatures], priors: Sequence[PosePrior], views: ViewSelector
) -> list[AlignmentProblem]:
    """What to align with what; raises CannotLocalize where no prior has enough points in view."""
    problems = [problem for prior in priors for problem in views.problems(images, prior)]
    if problems:
        return problems
    message = f"too few map points at {len(priors)} places where it might be"
    if views.map.tiles.missing:
        raise CannotLocalize(Reason.TILES_MISSING, f"{message}; {_missing(views.map)}")
    raise CannotLocalize(Reason.TOO_FEW_POINTS, message)


def _unusable(
    frame: Frame, priors: Sequence[PosePrior], views: ViewSelector
) -> tuple[Reason, str] | None:
    if refusal := _bad_image(frame):
        return refusal
    if len(priors) != 1:
        return None
    prior, limits = priors[0], views.config.view
    view = views.view(frame, prior.T_map_base, prior.point_ids)
    if view.nearest_m > limits.max_distance_m:
        return Reason.OUT_OF_MAP, f"nearest keyframe is {view.nearest_m:.0f} m away"
    if len(view) < limits.min_points and view.missing:
        return Reason.TILES_MISSING, f"only {len(view)} map points in view; {_missing(views.map)}"
    if len(view) < limits.min_points:
        view = views.view(frame, prior.T_map_base, prior.point_ids, provisional=True)
    if len(view) < limits.min_points:
        refused = views.map.tiles.refused
        damage = f"; refused tiles of the map: {', '.join(refused)}" if refused else ""
        return Reason.TOO_FEW_POINTS, f"only {len(view)} map points in view{damage}"
    return None


def _missing(map_: Map) -> str:
    """Which tiles of a map behind a URL are not here, and why."""
    return f"tiles not here: {map_.tiles.missing_note or 'just fetched'}"


def _bad_image(frame: Frame) -> tuple[Reason, str] | None:
    image = frame.image_rgb
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2:] != (3,) or dtype != np.uint8:
        return Reason.BAD_IMAGE, f"image is {dtype} {shape}, expected RGB as uint8 (H, W, 3)"
    height, width = shape[:2]
    if (width, height) == (frame.camera.width, frame.camera.height):
        return None
    calibrated = f"{frame.camera.width}x{frame.camera.height}"
    return Reason.BAD_IMAGE, f"image is {width}x{height}, calibrated for {calibrated}"
