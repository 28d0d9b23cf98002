"""Judge a map of drives before it is written: its figures, and where it is weak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.from_bag import gates, visual_start
from pixloc_ros.maps.build.from_bag.drive_images import DriveImages
from pixloc_ros.maps.build.from_bag.frames import ChosenFrames, KeyframeImage
from pixloc_ros.maps.build.from_bag.placing import PlacedImages
from pixloc_ros.maps.build.from_bag.report import MappingReport
from pixloc_ros.maps.build.from_bag.trajectory import SmoothTrajectory, fix_errors
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.recorded_drive import RecordedDrive, Stamps

COMPARED_KEYFRAMES = 10

FixErrors = Mapping[int, tuple[Stamps, Matrix]]  # by drive: stamps (K,), metres in the map (K, 3)


def judge(
    images: DriveImages, chosen: ChosenFrames, found: PlacedImages, config: MappingConfig
) -> MappingReport:
    """Measure a map against the limits of the configuration."""
    adjusted, smooth = found.adjusted, found.smooth
    model = _with_names_of_files(adjusted.model, images.keyframes)
    coverage = gates.coverage(model, [k.name for k in images.keyframes])
    T_map_base = adjusted.T_map_cam @ se3.inverse(images.T_base_cam)
    final = None if smooth is None else _moved(smooth, images, T_map_base)
    if final is not None:
        errors: FixErrors = fix_errors(images.drives, final, config)
    else:
        errors = _errors_at_images(images, T_map_base, adjusted.placed) if images.fixes else {}
    weak = coverage.weak(config)
    figures = gates.MapFigures(
        placed_share=float(adjusted.placed.mean()),
        error_px=adjusted.error_px,
        track_length=float(coverage.points.sum() / max(len(model.point_ids), 1)),
        weak_share=float((weak & adjusted.placed).mean()),
        fix_error_m=_median_m(errors),
        odometry_error_share=None if final is None else _odometry_difference(images.drives, final),
    )
    names = [drive.name for drive in images.drives]
    places = T_map_base[:, :3, 3]
    return MappingReport(
        drives=tuple(names),
        keyframes=tuple(images.keyframes),
        images=chosen.images,
        unreadable=chosen.unreadable,
        uncovered=chosen.uncovered,
        model=model,
        T_map_cam=adjusted.T_map_cam,
        T_map_base=T_map_base,
        placed=adjusted.placed,
        coverage=coverage,
        stretches=tuple(gates.weak_stretches(images.keyframes, names, places, coverage, config)),
        checks=tuple(gates.check_map(figures, config)),
        fixes=tuple(drive.fixes for drive in images.drives),
        fix_errors=errors,
        odometry_scale=smooth.odometry_scale if smooth and errors else (),
        fix_delay_s=smooth.fix_delay_s if smooth and errors else (),
        loops=found.loops,
        refined_intrinsics=adjusted.refined_intrinsics,
        metric=found.metric,
        weak=weak,
    )


def _with_names_of_files(model: ColmapModel, keyframes: Sequence[KeyframeImage]) -> ColmapModel:
    renamed = [
        replace(image, name=keyframes[int(Path(image.name).stem)].name) for image in model.images
    ]
    return replace(model, images=tuple(sorted(renamed, key=lambda image: image.name)))


def _moved(smooth: SmoothTrajectory, images: DriveImages, T_map_base: Matrix) -> SmoothTrajectory:
    """The trajectory at the poses (N, 4, 4) of the images."""
    by_moment = np.zeros((len(images.moments), 4, 4))
    by_moment[images.moment_of] = T_map_base
    return replace(smooth, T_map_base=by_moment)


def _errors_at_images(
    images: DriveImages, T_map_base: Matrix, placed: NDArray[np.bool_]
) -> FixErrors:
    """How far the fixes at the times of images are off the map."""
    drive_of, stamps_ns = images.drive_of, images.stamps_ns
    target, antenna, known = visual_start.fixes_at(images.fixes, drive_of, stamps_ns)
    position = T_map_base[:, :3, 3] + np.einsum("kij,kj->ki", T_map_base[:, :3, :3], antenna)
    errors = {}
    for number in range(len(images.drives)):
        use = known & placed & (drive_of == number)
        errors[number] = stamps_ns[use], (target - position)[use]
    return errors


def _median_m(errors: FixErrors) -> float | None:
    """The median distance of fixes from the map in the plane; None without fixes."""
    if not errors:
        return None
    everything = np.concatenate([error for _, error in errors.values()])
    return float(np.median(np.linalg.norm(everything[:, :2], axis=-1)))


def _odometry_difference(drives: Sequence[RecordedDrive], found: SmoothTrajectory) -> float | None:
    """How far the map is off odometry over ten keyframes, as a share of the way: the worst tenth.

    Over single keyframes noise would hide a stretch whose scale is wrong.
    """
    shares = []
    for number, drive in enumerate(drives):
        index = [i for i, moment in enumerate(found.moments) if moment.drive == number]
        over = min(COMPARED_KEYFRAMES, len(index) - 1)
        if drive.odometry is None or over < 1:
            continue
        stamps_ns = np.array([found.moments[i].stamp_ns for i in index], np.int64)
        poses, epoch = drive.odometry.at(stamps_ns), drive.odometry.epoch_at(stamps_ns)
        known = epoch[over:] == epoch[:-over]
        told = (se3.inverse(poses[:-over]) @ poses[over:])[known, :3, 3]
        T = found.T_map_base[index]
        own = (se3.inverse(T[:-over]) @ T[over:])[known, :3, 3]
        error_m = np.linalg.norm(own - found.odometry_scale[number] * told, axis=-1)
        shares.append(error_m / np.maximum(np.linalg.norm(told, axis=-1), 0.5))
    everything = np.concatenate([np.zeros(0), *shares])
    return float(np.quantile(everything, 0.9)) if len(everything) else None
