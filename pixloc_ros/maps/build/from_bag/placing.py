"""Place the keyframes of drives: by odometry at once or in chunks, or by their images alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pixloc_ros.common.parallel import Workers
from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.builder import BuildContext
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.from_bag import (
    adjustment,
    joining,
    joint_adjustment,
    matching,
    visual_start,
)
from pixloc_ros.maps.build.from_bag.adjustment import Adjusted
from pixloc_ros.maps.build.from_bag.chunks import Chunks, PlacedChunk, cut
from pixloc_ros.maps.build.from_bag.drive_images import DriveImages
from pixloc_ros.maps.build.from_bag.loops import Meeting, find_meetings
from pixloc_ros.maps.build.from_bag.trajectory import (
    Loop,
    SmoothTrajectory,
    join_steps,
    smooth_trajectory,
)
from pixloc_ros.maps.build.triangulation import near_pairs
from pixloc_ros.maps.build.work_folder import Parts

OVERLAP = 8  # chunks share this part of their keyframes: at its ends a chunk is held least
JOINT_ROUNDS = 2  # of adjusting chunks together and leaving out what does not fit
LOOP_DRIFT_M, LOOP_DRIFT_DEG = 0.15, 0.7  # that adjustment alone does not close


@dataclass(frozen=True, slots=True, eq=False)
class PlacedImages:
    """The result of placing the images of drives."""

    adjusted: Adjusted
    smooth: SmoothTrajectory | None = None  # by odometry; None: by the images alone
    loops: int = 0  # that were closed
    metric: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class ImagePlacer:
    """Places the images of drives, and triangulates what they share."""

    images: DriveImages
    run: ColmapRun
    config: MappingConfig
    priors: PriorsConfig
    context: BuildContext
    workers: Workers
    scale_from_m: float | None  # between the first and the last keyframe

    def place(self) -> PlacedImages:
        """Place the images. Only chunks, which need odometry, bound the memory.

        Raises MapError for drives that cannot be mapped.
        """
        if any(drive.odometry is None for drive in self.images.drives):
            return self._by_images()
        if len(self.images.files) > self.config.chunk_keyframes:
            return self._in_chunks()
        return self._by_odometry()

    def _by_odometry(self) -> PlacedImages:
        smooth = self._smooth()
        T = self.images.T_map_cam(smooth)
        pairs = self._pairs(T)
        self.run.extract()
        self.run.match(pairs)
        loops: list[Loop] = []
        if apart := [pair for pair in pairs if self._is_loop(pair)]:
            first = self.run.reconstruct(T)
            images = self.images
            met = find_meetings(self.run, first, images.T_base_cam, images.moment_of, apart)
            loops = _drifted(smooth, [meeting.loop for meeting in met])
        if loops:
            smooth = self._smooth(loops)
            T = self.images.T_map_cam(smooth)
        adjusted = adjustment.adjust(self.run, T, T[:, :3, 3], self.config, self.context.progress)
        return PlacedImages(adjusted, smooth, len(loops))

    def _in_chunks(self) -> PlacedImages:
        """As by odometry, chunk by chunk; loops join the chunks that they are of."""
        images, chunks, first = self.images, self._chunks(), self._smooth()
        T = images.T_map_cam(first)
        pairs = self._pairs(T)
        apart = [pair for pair in pairs if self._is_loop(pair)]
        meetings = chunks.find_meetings(T, apart, images.T_base_cam, images.moment_of)
        drifted = _drifted(first, [meeting.loop for meeting in meetings])
        smooth = self._smooth(drifted) if drifted else first
        placed = chunks.place(images.T_map_cam(smooth), pairs)
        loops = joining.loops_between(self.run, placed, meetings, images.T_base_cam, images.cameras)
        drifted = _drifted(first, loops)
        smooth = self._smooth(drifted) if drifted else first
        return PlacedImages(self._joined(placed, meetings, smooth, loops), smooth, len(drifted))

    def _chunks(self) -> Chunks:
        if self.config.refine_intrinsics == "always":
            raise MapError(
                f"{len(self.images.files)} keyframes are placed in chunks, which do not refine the "
                f"calibration: refine it on a part of the drive, or raise mapping.chunk_keyframes"
            )
        size = self.config.chunk_keyframes
        return Chunks(
            images=self.images.files,
            chunks=cut(self.images.drive_of, size, max(self.config.neighbours, size // OVERLAP)),
            config=self.config.model_copy(update={"refine_intrinsics": "never"}),
            workers=self.workers,
            work=self.run.folder,
            mask=self.run.mask,
            progress=self.context.progress,
        )

    def _joined(
        self,
        chunks: Sequence[PlacedChunk],
        meetings: Sequence[Meeting],
        smooth: SmoothTrajectory,
        loops: Sequence[Loop],
    ) -> Adjusted:
        images, moment_of = self.images, self.images.moment_of
        T_start = images.T_map_cam(smooth)
        found = joining.ties(chunks, images.T_base_cam)
        self.context.report(f"{len(chunks)} chunks joined; {found}")
        first_of = {moment: image for image, moment in reversed(list(enumerate(moment_of)))}
        T_map_base = join_steps(
            images.drives,
            [images.moments[i] for i in moment_of],
            smooth.T_map_base[moment_of],
            (found.first, found.second, found.T_first_second),
            [
                replace(loop, first=first_of[loop.first], second=first_of[loop.second])
                for loop in loops
            ],
            self.config,
        )
        T = T_map_base @ images.T_base_cam
        tracks = joining.join_tracks(chunks, meetings, T, images.cameras)
        for _ in range(JOINT_ROUNDS):
            tracks, T = joint_adjustment.adjust(tracks, T, T_start, self.config.position_sigma_m)
            tracks = tracks.only(tracks.errors_px(T) <= adjustment.MAX_ERROR_PX)
        model, error_px = joining.model_of(tracks, T, found.placed)
        return Adjusted(model, T, found.placed, error_px, refined_intrinsics=False)

    def _by_images(self) -> PlacedImages:
        self.run.extract()
        self.run.match(sorted({*self._sequence(), *self._places()}))
        self.context.report("no odometry: placing keyframes by their images alone")
        start = visual_start.reconstruct_images(self.run)
        T, placed, images = start.T_model_cam, start.placed, self.images
        T = visual_start.level(T[placed], images.T_base_cam[placed]).poses(T)
        anchors, metric = None, bool(images.fixes) or self.scale_from_m is not None
        if not metric:
            self.context.report(
                "neither odometry nor GNSS: the map has no metres, its unit is the median step "
                "between keyframes (--scale-from gives it metres)"
            )
        if images.fixes:
            T = visual_start.on_fixes(T, placed, images).poses(T)
            anchors = T[:, :3, 3]
        else:
            T = visual_start.scaling(T[placed, :3, 3], self.scale_from_m).poses(T)
        config = self.config.model_copy(update={"rounds": 1})  # the poses are adjusted already
        adjusted = adjustment.adjust(self.run, T, anchors, config, self.context.progress, placed)
        return PlacedImages(adjusted, metric=metric)

    def _smooth(self, loops: Sequence[Loop] = ()) -> SmoothTrajectory:
        images = self.images
        return smooth_trajectory(images.drives, images.moments, loops, self.config, self.priors)

    def _pairs(self, T_map_cam: Matrix) -> matching.Pairs:
        """Which images are matched: those close in time or in space, and those that look alike."""
        near = {*self._sequence(), *near_pairs(T_map_cam)}
        return sorted({*near, *self._places(T_map_cam[:, :3, 3])})

    def _sequence(self) -> matching.Pairs:
        return matching.sequence_pairs(self.images.keyframes, self.config.neighbours)

    def _places(self, positions: Matrix | None = None) -> matching.Pairs:
        """Pairs that look alike and are apart in time, where positions (N, 3) allow for it."""
        files, apart = self.images.files, 2 * self.config.neighbours
        possible = matching.PossiblePlaces(len(files), apart, positions)
        parts = Parts(self.run.folder)
        return matching.place_pairs(
            files, self.config.places, possible, parts, self.context.progress
        )

    def _is_loop(self, pair: tuple[int, int]) -> bool:
        first, second = (self.images.moment_of[i] for i in pair)
        return abs(first - second) >= 2 * self.config.neighbours


def _drifted(smooth: SmoothTrajectory, loops: Sequence[Loop]) -> list[Loop]:
    """Those loops that a trajectory is so far off that adjustment would not close them."""
    return [loop for loop in loops if _has_drifted(smooth, loop)]


def _has_drifted(smooth: SmoothTrajectory, loop: Loop) -> bool:
    T = se3.inverse(smooth.T_map_base[loop.first]) @ smooth.T_map_base[loop.second]
    too_far = se3.distance_m(T, loop.T_first_second) > LOOP_DRIFT_M
    return too_far or se3.angle_deg(T, loop.T_first_second) > LOOP_DRIFT_DEG
