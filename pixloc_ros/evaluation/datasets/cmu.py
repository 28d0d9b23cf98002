"""Extended CMU Seasons. The queries' true poses are public for some slices, but not for others.

The pose lists hold camera centres, the submission translations.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets import pose_lists, published, submission
from pixloc_ros.evaluation.datasets.protocol import (
    Benchmark,
    BenchmarkQuery,
    Matrix,
    Poses,
    Scene,
    check_images,
)
from pixloc_ros.evaluation.datasets.scores import OUTDOOR
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.files.colmap import ColmapModel, read_model

GROUPS = {"urban": range(2, 9), "suburban": range(9, 18), "park": range(18, 26)}
CAMERA_WORD = 2  # index in names such as img_00273_c1_1287503834101037us.jpg


class ExtendedCmu(Benchmark):
    """Drives through one town in all seasons, divided into slices with a model each."""

    title = "Extended CMU Seasons"
    home = (
        "data.ciirc.cvut.cz/public/projects/2020VisualLocalization/Extended-CMU-Seasons/"
        "slice<n>.tar"
    )
    scenes = tuple(f"slice{n}" for group in GROUPS.values() for n in group)
    limits = OUTDOOR
    with_medians = False
    published = published.CMU

    def load(self, scene: str) -> Scene:
        """Read the queries to submit, and those whose poses are public."""
        folder = self.find(scene, what="the folder of the slice")
        intrinsics = self.find("intrinsics.txt", what="the two cameras")
        cameras = hloc.read_cameras(intrinsics)
        truth = self._truth(folder)
        names = list(dict.fromkeys([*self._test_names(scene), *truth]))
        if not names:
            raise DataError(
                f"{folder} has neither test-images-{scene}.txt nor poses in camera-poses: "
                f"no queries; {self.home}"
            )
        check_images(folder / "query", names, self.home)
        group = next(name for name, numbers in GROUPS.items() if int(scene[5:]) in numbers)
        return Scene(
            name=scene,
            map_name=scene,
            queries=tuple(
                BenchmarkQuery(name, _camera(name, cameras, intrinsics), group) for name in names
            ),
            query_images=folder / "query",
            reference_images=folder / "database",
            references=partial(self._references, scene),
            truth=truth,
            retrieval=self.retrieval(scene, f"{scene}/pairs-query-*.txt"),
        )

    def _references(self, scene: str) -> ColmapModel:
        official = partial(self.find, f"{scene}/sparse", what="model of the database images")
        return read_model(self.model_folder(scene, official))

    def _test_names(self, scene: str) -> list[str]:
        path = self.files.root / scene / f"test-images-{scene}.txt"
        return hloc.read_names(path) if path.is_file() else []

    def _truth(self, folder: Path) -> dict[str, Matrix]:
        poses: dict[str, Matrix] = {}
        for file in sorted((folder / "camera-poses").glob("slice-*-gt-query-images-*.txt")):
            poses |= pose_lists.read_poses_of_centres(file)
        return poses

    def write_submission(self, folder: Path, poses: Mapping[str, Poses]) -> list[Path]:
        """Write all slices to one file, without the queries whose poses are public."""
        together: dict[str, Matrix] = {}
        for scene, of_scene in poses.items():
            names = self._test_names(scene)
            together |= {name: of_scene[name] for name in names if name in of_scene}
        if not together:
            return []
        return [submission.write(folder / "CMU_eval_pixloc_ros.txt", together)]


def _camera(name: str, cameras: dict[str, Camera], intrinsics: Path) -> Camera:
    words = name.split("_")
    if len(words) <= CAMERA_WORD or words[CAMERA_WORD] not in cameras:
        known = ", ".join(cameras)
        raise DataError(f"query {name}: its third word is none of {known} of {intrinsics}")
    return cameras[words[CAMERA_WORD]]
