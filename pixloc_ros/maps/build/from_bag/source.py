"""A recorded drive as a source of `build_map`: from images, odometry and fixes to a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.parallel import Workers
from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.builder import BuildContext, BuildOptions
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.from_bag import (
    adjustment,
    gates,
    joining,
    joint_adjustment,
    matching,
    report,
    visual_start,
)
from pixloc_ros.maps.build.from_bag.adjustment import Adjusted
from pixloc_ros.maps.build.from_bag.chunks import Chunks, PlacedChunk, cut
from pixloc_ros.maps.build.from_bag.frames import ChosenFrames, KeyframeImage, choose_frames
from pixloc_ros.maps.build.from_bag.loops import Meeting, find_meetings
from pixloc_ros.maps.build.from_bag.report import MappingReport
from pixloc_ros.maps.build.from_bag.trajectory import (
    Loop,
    Moment,
    SmoothTrajectory,
    fix_errors,
    join_steps,
    smooth_trajectory,
)
from pixloc_ros.maps.build.georeference import Similarity
from pixloc_ros.maps.build.triangulation import near_pairs
from pixloc_ros.maps.build.work_folder import Parts
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.posed_images import PosedImage
from pixloc_ros.maps.files.recorded_drive import RecordedDrive, Stamps
from pixloc_ros.maps.schema import file_sha256

COMPARED_KEYFRAMES = 10
OVERLAP = 8  # chunks share this part of their keyframes: at its ends a chunk is held least
JOINT_ROUNDS = 2  # of adjusting chunks together and leaving out what does not fit
LOOP_DRIFT_M, LOOP_DRIFT_DEG = 0.15, 0.7  # that adjustment alone does not close


@dataclass(slots=True, kw_only=True)
class DriveSource:
    """Drives as `read_drives` reads them from bags; their poses are found (needs pycolmap).

    With odometry the map is metric, with GNSS fixes it has a datum; with neither its unit is the
    step between two keyframes, or such that the first and the last one are `scale_from_m` apart.
    """

    drives: Sequence[RecordedDrive]
    mapping: MappingConfig = field(default_factory=MappingConfig)
    priors: PriorsConfig = field(default_factory=PriorsConfig)
    mask: Path | None = None  # image, black where the vehicle itself is in view
    scale_from_m: float | None = None
    report_folder: Path | None = None  # written also for a map that is refused
    force: bool = False  # write a map that is not good
    images: Path = field(default=Path(), init=False)  # folder of the keyframes once model() ran

    def model(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, BuildOptions]:
        """Choose keyframes, place them, triangulate what they share.

        Raises MapError for drives that cannot be mapped, and with all reasons for a map that is
        not good, unless forced.
        """
        if options.axes != "keep":
            raise MapError("the axes of a map of a drive are those of REP 103: leave out --axes")
        self.images = context.work / "frames"
        chosen = choose_frames(self.drives, self.images, self.mapping, context.progress)
        mapping = _Mapping(self, chosen, context, options.workers)
        found = mapping.build()
        context.report(found.summary)
        if self.report_folder is not None:
            report.write_report(found, self.report_folder, self.images)
            context.report(f"report: {self.report_folder / report.PAGE}")
        bad = [check for check in found.checks if not check.good]
        if bad and not self.force:
            reasons = "; ".join(f"{check}: {check.remedy}" for check in bad)
            raise MapError(f"the map is not good: {reasons}. --force writes it nevertheless")
        mount = options.T_base_cam
        return found.model, replace(
            options,
            keyframe_step=1,
            datum=options.datum or self.drives[0].datum,
            T_base_cam=mount if mount is not None else self.drives[0].cameras[0].T_base_cam,
        )


class _Mapping:
    """One build: images by number, moments by number, and what is known of each."""

    def __init__(
        self,
        source: DriveSource,
        chosen: ChosenFrames,
        context: BuildContext,
        workers: Workers | None = None,
    ) -> None:
        self.source, self.chosen, self.context = source, chosen, context
        self.workers = workers or Workers()
        self.config, self.drives = source.mapping, source.drives
        self.keyframes: Sequence[KeyframeImage] = chosen.keyframes
        stamps = sorted({(k.drive, k.stamp_ns) for k in self.keyframes})
        self.moments = tuple(Moment(*stamp) for stamp in stamps)
        number = {stamp: i for i, stamp in enumerate(stamps)}
        self.moment_of = [number[k.drive, k.stamp_ns] for k in self.keyframes]
        cameras = [self.drives[k.drive].camera(k.camera_name) for k in self.keyframes]
        self.T_base_cam = np.stack([camera.T_base_cam for camera in cameras])
        self.images = [
            PosedImage(k.name, source.images / k.name, camera.camera, np.eye(4))
            for k, camera in zip(self.keyframes, cameras, strict=True)
        ]
        self.run = ColmapRun(
            context.work / self._digest(), self.images, context.progress, source.mask
        )
        self.loops = 0

    def build(self) -> MappingReport:
        """Place the keyframes and judge the map; memory is bounded by chunks with odometry only."""
        if any(drive.odometry is None for drive in self.drives):
            return self._judged(*self._by_images())
        if len(self.images) > self.config.chunk_keyframes:
            return self._judged(*self._in_chunks())
        return self._judged(*self._by_odometry())

    def _by_odometry(self) -> tuple[SmoothTrajectory, Adjusted]:
        smooth = self._smooth()
        T = self._cameras(smooth)
        pairs = self._pairs(T)
        self.run.extract()
        self.run.match(pairs)
        loops = []
        if apart := [pair for pair in pairs if self._is_loop(pair)]:
            first = self.run.reconstruct(T)
            met = find_meetings(self.run, first, self.T_base_cam, self.moment_of, apart)
            loops = [meeting.loop for meeting in met if _has_drifted(smooth, meeting.loop)]
        if loops:
            self.loops = len(loops)
            smooth = self._smooth(loops)
            T = self._cameras(smooth)
        adjusted = adjustment.adjust(self.run, T, T[:, :3, 3], self.config, self.context.progress)
        return smooth, adjusted

    def _in_chunks(self) -> tuple[SmoothTrajectory, Adjusted]:
        """As by odometry, chunk by chunk; loops join the chunks that they are of."""
        if self.config.refine_intrinsics == "always":
            raise MapError(
                f"{len(self.images)} keyframes are placed in chunks, which do not refine the "
                f"calibration: refine it on a part of the drive, or raise mapping.chunk_keyframes"
            )
        config = self.config.model_copy(update={"refine_intrinsics": "never"})
        (drive_of, _), size = self._times(), self.config.chunk_keyframes
        chunks = Chunks(
            images=self.images,
            chunks=cut(drive_of, size, max(self.config.neighbours, size // OVERLAP)),
            config=config,
            workers=self.workers,
            work=self.run.folder,
            mask=self.source.mask,
            progress=self.context.progress,
        )
        first = self._smooth()
        T = self._cameras(first)
        pairs = self._pairs(T)
        apart = [pair for pair in pairs if self._is_loop(pair)]
        meetings = chunks.find_meetings(T, apart, self.T_base_cam, self.moment_of)
        loops = [meeting.loop for meeting in meetings]
        placed = chunks.place(self._cameras(self._closed(first, loops)), pairs)
        loops = joining.loops_between(
            self.run, placed, meetings, self.T_base_cam, self._calibrations
        )
        smooth = self._closed(first, loops)
        return smooth, self._joined(placed, meetings, smooth, loops)

    def _closed(self, smooth: SmoothTrajectory, loops: Sequence[Loop]) -> SmoothTrajectory:
        """The trajectory with loops, where it is so far off that adjustment would not close it."""
        drifted = [loop for loop in loops if _has_drifted(smooth, loop)]
        self.loops = len(drifted)
        return self._smooth(drifted) if drifted else smooth

    def _joined(
        self,
        chunks: Sequence[PlacedChunk],
        meetings: Sequence[Meeting],
        smooth: SmoothTrajectory,
        loops: Sequence[Loop],
    ) -> Adjusted:
        T_start = self._cameras(smooth)
        found = joining.ties(chunks, self.T_base_cam)
        self.context.report(f"{len(chunks)} chunks joined; {found}")
        first_of = {moment: image for image, moment in reversed(list(enumerate(self.moment_of)))}
        T_map_base = join_steps(
            self.drives,
            [self.moments[i] for i in self.moment_of],
            smooth.T_map_base[self.moment_of],
            (found.first, found.second, found.T_first_second),
            [
                replace(loop, first=first_of[loop.first], second=first_of[loop.second])
                for loop in loops
            ],
            self.config,
        )
        T = T_map_base @ self.T_base_cam
        tracks = joining.join_tracks(chunks, meetings, T, self._calibrations)
        for _ in range(JOINT_ROUNDS):
            tracks, T = joint_adjustment.adjust(tracks, T, T_start, self.config.position_sigma_m)
            tracks = tracks.only(tracks.errors_px(T) <= adjustment.MAX_ERROR_PX)
        model, error_px = joining.model_of(tracks, T, found.placed)
        return Adjusted(model, T, found.placed, error_px, refined_intrinsics=False)

    @property
    def _calibrations(self) -> list[Camera]:
        return [image.camera for image in self.images]

    def _smooth(self, loops: Sequence[Loop] = ()) -> SmoothTrajectory:
        return smooth_trajectory(self.drives, self.moments, loops, self.config, self.source.priors)

    def _pairs(self, T_map_cam: Matrix) -> matching.Pairs:
        """Which images are matched: those close in time or in space, and those that look alike."""
        near = {*self._sequence(), *near_pairs(T_map_cam)}
        return sorted({*near, *self._places(T_map_cam[:, :3, 3])})

    def _by_images(self) -> tuple[SmoothTrajectory | None, Adjusted]:
        self.run.extract()
        self.run.match(sorted({*self._sequence(), *self._places()}))
        self.context.report("no odometry: placing keyframes by their images alone")
        start = visual_start.reconstruct_images(self.run)
        T = start.T_model_cam
        levelled = visual_start.level(T[start.placed], self.T_base_cam[start.placed])
        T = levelled.poses(T)
        anchors = None
        if any(drive.fixes is not None for drive in self.drives):
            T, anchors = self._on_fixes(T, start.placed)
        else:
            T = self._scaled(T, start.placed)
        config = self.config.model_copy(update={"rounds": 1})  # the poses are adjusted already
        return None, adjustment.adjust(
            self.run, T, anchors, config, self.context.progress, start.placed
        )

    def _on_fixes(self, T: Matrix, placed: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        fixes = [drive.fixes for drive in self.drives]
        if any(own is None for own in fixes):
            raise MapError("of several drives without odometry each needs GNSS fixes")
        drive_of, stamps_ns = self._times()
        similarity, _ = visual_start.lay_on_fixes(
            T[placed],
            self.T_base_cam[placed],
            [own for own in fixes if own is not None],
            drive_of[placed],
            stamps_ns[placed],
        )
        T = similarity.poses(T)
        return T, T[:, :3, 3]

    def _scaled(self, T: Matrix, placed: NDArray[np.bool_]) -> Matrix:
        way = T[placed, :3, 3]
        known_m = self.source.scale_from_m
        steps = np.linalg.norm(np.diff(way, axis=0), axis=-1)
        unit = (
            float(np.median(steps[steps > 0]))
            if known_m is None
            else (float(np.linalg.norm(way[-1] - way[0])) / known_m)
        )
        if known_m is None:
            self.context.report(
                "neither odometry nor GNSS: the map has no metres, its unit is the median step "
                "between keyframes (--scale-from gives it metres)"
            )
        return Similarity(1 / unit, np.eye(3), np.zeros(3)).poses(T)

    def _model(self, adjusted: Adjusted) -> ColmapModel:
        """The model with the names of the keyframes' files."""
        model = adjusted.model
        renamed = [
            replace(image, name=self.keyframes[int(Path(image.name).stem)].name)
            for image in model.images
        ]
        return replace(model, images=tuple(sorted(renamed, key=lambda image: image.name)))

    def _judged(self, smooth: SmoothTrajectory | None, adjusted: Adjusted) -> MappingReport:
        model = self._model(adjusted)
        found = gates.coverage(model, [k.name for k in self.keyframes])
        T_map_base = adjusted.T_map_cam @ se3.inverse(self.T_base_cam)
        by_moment = np.zeros((len(self.moments), 4, 4))
        by_moment[self.moment_of] = T_map_base
        errors = {}
        odometry_share = None
        if smooth is not None:
            final = replace(smooth, T_map_base=by_moment)
            errors = fix_errors(self.drives, final, self.config)
            odometry_share = _odometry_difference(self.drives, final)
        elif self._has_fixes:
            errors = self._fix_errors(T_map_base, adjusted.placed)
        all_errors = [error for _, error in errors.values()]
        fix_error_m = (
            float(np.median(np.linalg.norm(np.concatenate(all_errors)[:, :2], axis=-1)))
            if all_errors
            else None
        )
        track_length = float(found.points.sum() / max(len(model.point_ids), 1))
        weak = found.weak(self.config) & adjusted.placed
        positions = T_map_base[:, :3, 3]
        names = [drive.name for drive in self.drives]
        return MappingReport(
            drives=tuple(names),
            keyframes=tuple(self.keyframes),
            images=self.chosen.images,
            unreadable=self.chosen.unreadable,
            model=model,
            T_map_cam=adjusted.T_map_cam,
            T_map_base=T_map_base,
            placed=adjusted.placed,
            coverage=found,
            stretches=tuple(
                gates.weak_stretches(self.keyframes, names, positions, found, self.config)
            ),
            checks=tuple(
                gates.check_map(
                    float(adjusted.placed.mean()),
                    adjusted.error_px,
                    track_length,
                    fix_error_m,
                    odometry_share,
                    float(weak.mean()),
                    self.config,
                )
            ),
            fixes=tuple(drive.fixes for drive in self.drives),
            fix_errors=errors,
            odometry_scale=smooth.odometry_scale if smooth and errors else (),
            fix_delay_s=smooth.fix_delay_s if smooth and errors else (),
            loops=self.loops,
            refined_intrinsics=adjusted.refined_intrinsics,
            metric=smooth is not None or bool(self.source.scale_from_m) or self._has_fixes,
            weak=found.weak(self.config),
        )

    def _fix_errors(
        self, T_map_base: Matrix, placed: NDArray[np.bool_]
    ) -> dict[int, tuple[Stamps, Matrix]]:
        """By drive, stamps of keyframes and how far (K, 3) the fixes then are off the map."""
        drive_of, stamps_ns = self._times()
        fixes = [drive.fixes for drive in self.drives if drive.fixes is not None]
        target, antenna, known = visual_start.fixes_at(fixes, drive_of, stamps_ns)
        position = T_map_base[:, :3, 3] + np.einsum("kij,kj->ki", T_map_base[:, :3, :3], antenna)
        errors = {}
        for number in range(len(self.drives)):
            use = known & placed & (drive_of == number)
            errors[number] = stamps_ns[use], (target - position)[use]
        return errors

    def _times(self) -> tuple[NDArray[np.int64], Stamps]:
        """Drive and stamp (N,) of each image."""
        drive_of = np.array([k.drive for k in self.keyframes], np.int64)
        return drive_of, np.array([k.stamp_ns for k in self.keyframes], np.int64)

    @property
    def _has_fixes(self) -> bool:
        return any(drive.fixes is not None for drive in self.drives)

    def _cameras(self, smooth: SmoothTrajectory) -> Matrix:
        return smooth.T_map_base[self.moment_of] @ self.T_base_cam

    def _sequence(self) -> matching.Pairs:
        return matching.sequence_pairs(self.keyframes, self.config.neighbours)

    def _places(self, positions: Matrix | None = None) -> matching.Pairs:
        """Pairs that look alike and are apart in time, where positions (N, 3) allow for it."""
        apart = 2 * self.config.neighbours
        possible = matching.PossiblePlaces(len(self.images), apart, positions)
        parts = Parts(self.run.folder)
        return matching.place_pairs(
            self.images, self.config.places, possible, parts, self.context.progress
        )

    def _is_loop(self, pair: tuple[int, int]) -> bool:
        first, second = (self.moment_of[i] for i in pair)
        return abs(first - second) >= 2 * self.config.neighbours

    def _digest(self) -> str:
        """Stands for all that keypoints and matches depend on."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(repr((image.name, image.camera.to_colmap())).encode())
        for drive in self.drives:
            digest.update(drive.identity.encode())
        if self.source.mask is not None:
            digest.update(file_sha256(self.source.mask).encode())
        return f"colmap-{digest.hexdigest()[:16]}"


def _has_drifted(smooth: SmoothTrajectory, loop: Loop) -> bool:
    """Whether the trajectory is so far off what images tell that adjustment would not mend it."""
    T = se3.inverse(smooth.T_map_base[loop.first]) @ smooth.T_map_base[loop.second]
    too_far = se3.distance_m(T, loop.T_first_second) > LOOP_DRIFT_M
    return too_far or se3.angle_deg(T, loop.T_first_second) > LOOP_DRIFT_DEG


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
