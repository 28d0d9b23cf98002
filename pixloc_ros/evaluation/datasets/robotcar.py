"""RobotCar Seasons v2: poses of its training queries are public, the server scores the others.

Models and lists name `.png` files, some with a leading `./`; the images are `.jpg`. Only the rear
camera is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets import published, submission
from pixloc_ros.evaluation.datasets.protocol import (
    Benchmark,
    BenchmarkQuery,
    Matrix,
    Poses,
    RigImage,
    Scene,
    check_images,
)
from pixloc_ros.evaluation.datasets.scores import OUTDOOR
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files import colmap_edit, hloc
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.maps.files.colmap_database import read_database_cameras
from pixloc_ros.maps.files.nvm import read_nvm

NIGHT = ("night", "night-rain")
SCORED_CAMERA, OTHER_CAMERAS = "rear", ("left", "right")
TRAIN, TEST = "robotcar_v2_train.txt", "robotcar_v2_test.txt"
PLACES = "3D-models/individual/colmap_reconstructions"
QUERIES_OF_PLACES = "3D-models/individual/queries_per_location"


class RobotCar(Benchmark):
    """Drives through Oxford in nine conditions, on a map made on overcast days."""

    title = "RobotCar Seasons v2"
    home = "data.ciirc.cvut.cz/public/projects/2020VisualLocalization/RobotCar-Seasons/"
    scenes = (
        "dawn",
        "dusk",
        "night",
        "night-rain",
        "overcast-summer",
        "overcast-winter",
        "rain",
        "snow",
        "sun",
    )
    limits = OUTDOOR
    with_medians = False
    published = published.ROBOTCAR

    def is_present(self, scene: str) -> bool:
        return (self.files.root / "images" / scene).is_dir()

    def load(self, scene: str) -> Scene:
        """Read the queries of a condition, both those to submit and those with public poses."""
        images = self.find("images", what="the folder of all conditions")
        truth = {name: T for name, T in self._truth().items() if name.startswith(f"{scene}/")}
        tests = [name for name in self._test_names() if name.startswith(f"{scene}/")]
        names = list(dict.fromkeys([*tests, *truth]))
        if not names:
            raise DataError(f"{TRAIN} and {TEST} in {self.files.root} have no query of {scene}")
        check_images(images, names, self.home)
        camera = self._camera(images / names[0], SCORED_CAMERA)
        rig = self._rig(images, scene) if self.files.rig else {}
        group = "night" if scene in NIGHT else "day"
        retrieval = self.retrieval(
            scene, "pairs-query-netvlad10-percam-perloc.txt", "pairs-query-*.txt"
        )
        if retrieval.descriptors:
            retrieval = replace(retrieval, among=self._same_place(names))
        return Scene(
            name=scene,
            map_name="overcast-reference",
            queries=tuple(
                BenchmarkQuery(name, camera, group, SCORED_CAMERA, _others(name, rig, images))
                for name in names
            ),
            query_images=images,
            reference_images=images,
            references=self._references,
            truth=truth,
            retrieval=retrieval,
        )

    def write_submission(self, folder: Path, poses: Mapping[str, Poses]) -> list[Path]:
        """Write all conditions to one file; the server also accepts some of them."""
        localized = {name: T for of_scene in poses.values() for name, T in of_scene.items()}
        tests = {name: localized[name] for name in self._test_names() if name in localized}
        if not tests:
            return []
        return [submission.write(folder / "RobotCar_eval_pixloc_ros.txt", tests, parts=2)]

    def _test_names(self) -> list[str]:
        what = "names of the queries to submit"
        names = hloc.read_names(self.find(TEST, what=what))
        return [image_name(name) for name in names if f"/{SCORED_CAMERA}/" in name]

    def _truth(self) -> dict[str, Matrix]:
        """Read T_cam_world of the public queries.

        Their lines hold `name` and a 4x4 camera-to-world matrix.
        """
        poses = {}
        for where, line in hloc.read_lines(self.find(TRAIN, what="public poses"), "poses"):
            name, *words = line.split()
            try:
                T_world_cam = np.array(words, np.float64).reshape(4, 4)
            except ValueError:
                T_world_cam = np.zeros((4, 4))
            if not se3.is_rigid(T_world_cam):
                raise DataError(f"{where}: expected a name and a rigid 4x4 camera-to-world matrix")
            if f"/{SCORED_CAMERA}/" in name:
                poses[image_name(name)] = se3.inverse(T_world_cam)
        return poses

    def _same_place(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """Return references of the same camera in the same of the 49 places, as in published runs.

        Queries that no list of places names are left out.
        """
        among: dict[str, frozenset[str]] = {}
        for file in sorted((self.files.root / QUERIES_OF_PLACES).glob("queries_location_*.txt")):
            number = file.stem.removeprefix("queries_location_")
            listed = {image_name(name) for name in hloc.read_names(file)} & set(names)
            if listed:
                folder = self.find(f"{PLACES}/{number}_aligned", what=f"references of {file.name}")
                images = read_model(folder, with_points=False).images
                seen = frozenset(image_name(image.name) for image in images)
                ours = frozenset(name for name in seen if f"/{SCORED_CAMERA}/" in name)
                among |= {name: among.get(name, frozenset()) | ours for name in listed}
        return among

    def _rig(self, images: Path, scene: str) -> dict[str, tuple[Camera, Matrix]]:
        """Return each other camera that has images of a condition, with T_scored_cam (4, 4)."""
        T_car_scored, found = self._extrinsics(SCORED_CAMERA), {}
        for name in OTHER_CAMERAS:
            image = next((images / scene / name).glob("*.jpg"), None)
            if image is not None:
                T_scored_cam = se3.inverse(T_car_scored) @ self._extrinsics(name)
                found[name] = self._camera(image, name), T_scored_cam
        if not found:
            raise DataError(f"{images / scene} has no images of {' and '.join(OTHER_CAMERAS)}")
        return found

    def _extrinsics(self, camera: str) -> Matrix:
        """Return T_car_cam (4, 4)."""
        file = self.find(
            f"extrinsics/{camera}_extrinsics.txt", what="pose of the camera in the car"
        )
        try:
            rows = [line.replace(",", " ").split() for _, line in hloc.read_lines(file, "poses")]
            T_car_cam = np.array(rows, np.float64).reshape(4, 4)
        except ValueError:
            T_car_cam = np.zeros((4, 4))
        if not se3.is_rigid(T_car_cam):
            raise DataError(f"{file}: expected a rigid 4x4 camera-to-car matrix")
        return T_car_cam

    def _camera(self, image: Path, name: str) -> Camera:
        """Return a camera by name; its images are undistorted."""
        file = self.find(f"intrinsics/{name}_intrinsics.txt", what="fx, fy, cx, cy")
        size = image_files.read_size(image)
        try:
            values = [float(line.split()[1]) for _, line in hloc.read_lines(file, "intrinsics")]
            fx, fy, cx, cy = values[:4]
        except (ValueError, IndexError):
            raise DataError(f"{file}: expected four lines, as `fx 400.0`") from None
        if size is None:
            raise DataError(f"{image} is not a JPEG file; {self.home}")
        return Camera.from_colmap("PINHOLE", *size, [fx, fy, cx, cy])

    def _references(self) -> ColmapModel:
        """Read the user's model, the 49 text models of places, or the NVM file of all places."""
        root = self.files.root
        folders = sorted((root / PLACES).glob("*_aligned"))
        if self.files.model:
            model = read_model(self.model_folder("", lambda: root))
        elif folders:
            model = colmap_edit.joined([read_model(folder) for folder in folders])
        else:
            return self._nvm()
        return colmap_edit.renamed(model, image_name)

    def _nvm(self) -> ColmapModel:
        what = f"the reference model (or the folders below {PLACES})"
        nvm = self.find("3D-models/all-merged/all.nvm", what=what)
        database = self.find("3D-models/overcast-reference.db", what="intrinsics of that model")
        cameras = read_database_cameras(database)
        return read_nvm(nvm, {image_name(n): c for n, c in cameras.items()}, image_name)


def _others(
    query: str, rig: Mapping[str, tuple[Camera, Matrix]], images: Path
) -> tuple[RigImage, ...]:
    """Return the images of the other cameras with the same file name as a query."""
    names = {camera: query.replace(f"/{SCORED_CAMERA}/", f"/{camera}/") for camera in rig}
    taken = [(camera, name) for camera, name in names.items() if (images / name).is_file()]
    return tuple(RigImage(name, camera, *rig[camera]) for camera, name in taken)


def image_name(name: str) -> str:
    """Return the image file that a name in a model or list refers to."""
    return name.removeprefix("./").removesuffix(".png").removesuffix(".jpg") + ".jpg"
