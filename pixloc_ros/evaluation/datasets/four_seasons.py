"""4Seasons: poses of queries relative to given reference frames.

Poses are camera-to-world with quaternions x y z w. The error of a query is the distance between the
estimated and the true position of the reference camera in the query's frame. Limits are inclusive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pixloc_ros.common.atomic_write import write_text
from pixloc_ros.errors import CameraError, DataError
from pixloc_ros.evaluation.datasets import published
from pixloc_ros.evaluation.datasets.protocol import (
    Benchmark,
    BenchmarkQuery,
    DatasetFiles,
    Matrix,
    PosedReference,
    Poses,
    References,
    Retrieval,
    Scene,
    check_images,
)
from pixloc_ros.evaluation.datasets.scores import MISSING_DEG, MISSING_M, Limit, PoseErrors
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap import read_model
from pixloc_ros.maps.files.hloc import read_lines

RELOCALIZATION = {
    "training": "RelocalizationFilesTrain/relocalizationFile_recording_2020-03-24_17-36-22",
    "validation": "RelocalizationFilesVal/relocalizationFile_recording_2020-03-03_12-03-23",
    "test0": "RelocalizationFilesTest/relocalizationFile_recording_2020-03-24_17-45-31",
    "test1": "RelocalizationFilesTest/relocalizationFile_recording_2020-04-23_19-37-00",
}
# If there are several files for one recording, the later one assigns the references.
HARD_TO_EASY = ("_hard", "_moderate", "_easy", "")


class FourSeasons(Benchmark):
    """Drives with a stereo camera in one area, in several seasons."""

    title = "4Seasons relocalization"
    home = "4seasons-dataset.com (reference, training, validation, test0, test1)"
    scenes = tuple(RELOCALIZATION)
    limits = tuple(Limit(metres, inclusive=True) for metres in (0.1, 0.2, 0.5))
    with_medians = False
    published = published.FOUR_SEASONS

    def __init__(self, files: DatasetFiles):
        super().__init__(files)
        self._T_ref_world: dict[str, Matrix] = {}  # of the reference given with each query

    def load(self, scene: str) -> Scene:
        """Read queries, their reference frames, and relative poses if they are public."""
        references = self._reference_poses()
        nearest: dict[str, str] = {}
        truth: dict[str, Matrix] = {}
        for reference, query, T_query_ref in self._relocalizations(scene):
            if reference not in references:
                raise DataError(f"reference/poses.txt has no frame {reference}, named for {query}")
            nearest[query] = reference
            if T_query_ref is not None:
                truth[query] = T_query_ref @ se3.inverse(references[reference])
        self._T_ref_world |= {q: se3.inverse(references[r]) for q, r in nearest.items()}
        images = self.find(f"{scene}/undistorted_images", what="images of the recording")
        names = {query: _image(query) for query in nearest}
        check_images(images, list(names.values()), self.home)
        camera = self._camera(scene, 0)
        return Scene(
            name=scene,
            map_name="reference",
            queries=tuple(BenchmarkQuery(name, camera, scene) for name in names.values()),
            query_images=images,
            reference_images=self.find("reference/undistorted_images", what="reference images"),
            references=self._references,
            truth={_image(query): T for query, T in truth.items()},
            retrieval=Retrieval(nearest={_image(q): _image(r) for q, r in nearest.items()}),
        )

    def errors(self, poses: Poses, truth: Poses) -> PoseErrors:
        """Return distances between relative translations; rotations are not scored."""
        distance_m = np.full(len(truth), MISSING_M)
        angle_deg = np.full(len(truth), MISSING_DEG)
        for i, (name, T_cam_world) in enumerate(truth.items()):
            if name in poses:
                T_world_ref = se3.inverse(self._T_ref_world[Path(name).stem])
                distance_m[i] = se3.distance_m(poses[name] @ T_world_ref, T_cam_world @ T_world_ref)
                angle_deg[i] = se3.angle_deg(poses[name], T_cam_world)
        return PoseErrors(distance_m, angle_deg)

    def write_submission(self, folder: Path, poses: Mapping[str, Poses]) -> list[Path]:
        """Write one file of relative poses per relocalization file."""
        references, written = self._reference_poses(), []
        for scene, of_scene in poses.items():
            for file in self._files(scene):
                lines = [
                    _relative_line(reference, query, of_scene[_image(query)], references)
                    for reference, query, _ in _relocalizations(file)
                    if _image(query) in of_scene
                ]
                write_text(folder / file.name, "".join(lines))
                written.append(folder / file.name)
        return written

    def _files(self, scene: str) -> list[Path]:
        stem = self.files.root / "reference" / RELOCALIZATION[scene]
        files = [stem.with_name(f"{stem.name}{level}.txt") for level in HARD_TO_EASY]
        found = [file for file in files if file.is_file()]
        if not found:
            raise DataError(f"{stem}*.txt is missing: which queries to relocalize; {self.home}")
        return found

    def _relocalizations(self, scene: str) -> Iterator[tuple[str, str, Matrix | None]]:
        for file in self._files(scene):
            yield from _relocalizations(file)

    def _reference_poses(self) -> dict[str, Matrix]:
        """Return T_world_cam of the left camera by time stamp."""
        path = self.find("reference/poses.txt", what="poses of the reference frames")
        poses = {}
        for where, line in read_lines(path, "poses"):
            stamp, *words = line.replace(",", " ").split()
            poses[stamp] = _transform(where, words)
        return poses

    def _references(self) -> References:
        """Return both cameras of all reference frames, for triangulation, or the user's model."""
        if self.files.model:
            return read_model(self.model_folder("reference", lambda: self.files.root))
        folder = self.find("reference/undistorted_images", what="reference images")
        stereo = self.find("reference/Calibration/undistorted_calib_stereo.txt", what="4x4 matrix")
        T_right_left = np.array(
            [line.split() for _, line in read_lines(stereo, "numbers")], np.float64
        )
        if not se3.is_rigid(T_right_left):
            raise DataError(f"{stereo}: expected a rigid 4x4 matrix, left camera to right")
        cameras = [self._camera("reference", i) for i in (0, 1)]
        found = []
        for stamp, T_world_left in self._reference_poses().items():
            T_left_world = se3.inverse(T_world_left)
            for i, T in enumerate((T_left_world, T_right_left @ T_left_world)):
                if (folder / _image(stamp, i)).is_file():
                    found.append(PosedReference(_image(stamp, i), cameras[i], T))
        return tuple(found)

    def _camera(self, recording: str, index: int) -> Camera:
        path = self.find(
            f"{recording}/Calibration/undistorted_calib_{index}.txt", what="the camera's intrinsics"
        )
        try:
            (_, pinhole), (_, size) = list(read_lines(path, "intrinsics"))[:2]
            model, *params = pinhole.split()
            width, height = (int(word) for word in size.split()[:2])
            if model != "Pinhole":
                raise ValueError(f"camera model {model}")
            return Camera.from_colmap("PINHOLE", width, height, [float(p) for p in params[:4]])
        except (ValueError, CameraError) as error:
            raise DataError(
                f"{path}: expected `Pinhole fx fy cx cy ...`, then `width height` ({error})"
            ) from None


def _image(stamp: str, camera: int = 0) -> str:
    return f"cam{camera}/{stamp}.png"


def _relocalizations(file: Path) -> Iterator[tuple[str, str, Matrix | None]]:
    """Yield reference and query of each line, and T_query_ref if the line has it."""
    for where, line in read_lines(file, "relocalizations"):
        reference, *rest = line.replace(",", " ").split()
        if len(rest) not in (1, 8):
            raise DataError(f"{where}: expected `ref_ts q_ts [tx ty tz qx qy qz qw]`")
        yield reference, rest[0], _transform(where, rest[1:]) if len(rest) == 8 else None


def _transform(where: str, words: list[str]) -> Matrix:
    """Return (4, 4) of tx ty tz qx qy qz qw."""
    try:
        numbers = np.array(words, np.float64).reshape(7)
        return se3.from_quat_xyzw(numbers[3:], numbers[:3])
    except ValueError:
        raise DataError(f"{where}: expected a pose `tx ty tz qx qy qz qw`") from None


def _relative_line(
    reference: str, query: str, T_cam_world: Matrix, references: Mapping[str, Matrix]
) -> str:
    T_query_ref = T_cam_world @ references[reference]
    numbers = (*T_query_ref[:3, 3], *se3.quat_xyzw(T_query_ref))
    return " ".join([reference, query, *(f"{value:.12g}" for value in numbers)]) + "\n"
