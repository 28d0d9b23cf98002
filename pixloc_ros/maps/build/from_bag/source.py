"""A recorded drive as a source of `build_map`: from images, odometry and fixes to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixloc_ros.common.arguments import Arguments
from pixloc_ros.config import PriorsConfig
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.errors import MapError
from pixloc_ros.maps.build.builder import BuildContext, BuildOptions
from pixloc_ros.maps.build.colmap_pipeline import ColmapRun
from pixloc_ros.maps.build.from_bag import report
from pixloc_ros.maps.build.from_bag.drive_images import DriveImages
from pixloc_ros.maps.build.from_bag.frames import choose_frames
from pixloc_ros.maps.build.from_bag.judgement import judge
from pixloc_ros.maps.build.from_bag.placing import ImagePlacer
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.recorded_drive import RecordedDrive


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

    def __post_init__(self) -> None:
        """Raise MapError for a value that cannot be."""
        arguments = Arguments("DriveSource", MapError)
        drives = self.drives
        fits = isinstance(drives, list | tuple) and all(
            isinstance(drive, RecordedDrive) for drive in drives
        )
        arguments.require(fits and bool(drives), "drives", drives, "those of read_drives([bag])")
        for name, kind in (("mapping", MappingConfig), ("priors", PriorsConfig)):
            value = getattr(self, name)
            arguments.require(isinstance(value, kind), name, value, kind.__name__)
        if self.scale_from_m is not None:
            arguments.positive("scale_from_m", self.scale_from_m)

    def model(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, BuildOptions]:
        """Choose keyframes, place them, triangulate what they share.

        Raises MapError for drives that cannot be mapped, and with all reasons for a map that is
        not good, unless forced.
        """
        if options.axes != "keep":
            raise MapError("the axes of a map of a drive are those of REP 103: leave out --axes")
        for drive in self.drives:
            for note in drive.notes:
                context.report(f"{drive.name}: {note}")
        self.images = context.work / "frames"
        chosen = choose_frames(self.drives, self.images, self.mapping, context.progress)
        images = DriveImages.of(self.drives, chosen.keyframes, self.images)
        folder = context.work / f"colmap-{images.digest(self.mask)}"
        run = ColmapRun(folder, images.files, context.progress, self.mask)
        placer = ImagePlacer(
            images, run, self.mapping, self.priors, context, options.workers, self.scale_from_m
        )
        found = judge(images, chosen, placer.place(), self.mapping)
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
