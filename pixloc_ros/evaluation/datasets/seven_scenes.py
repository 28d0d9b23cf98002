"""7Scenes, evaluated against hloc's triangulated models or against pseudo ground truth.

hloc's models have the poses of the depth SLAM; the pseudo ground truth, SfM or depth SLAM, is that
of Brachmann et al. (ICCV 2021). Figures for one must not be compared with figures for another.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets import pose_lists, published
from pixloc_ros.evaluation.datasets.protocol import (
    Benchmark,
    BenchmarkQuery,
    DatasetFiles,
    PosedReference,
    Scene,
    check_images,
)
from pixloc_ros.evaluation.datasets.scores import INDOOR
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.files import colmap_edit, hloc
from pixloc_ros.maps.files.colmap import ColmapModel, read_model

# For rooms: what is one place on a road is a different wall here.
INDOOR_SETTINGS = {
    "retrieval.same_place_m": 1.0,
    "retrieval.sigma_m": 0.15,
    "retrieval.sigma_deg": 5.0,
    "view.max_distance_m": 4.0,
    "view.extra_view_spacing_m": 0.7,
    "view.reselect_distance_m": 0.1,
    "hypotheses.same_pose_m": 0.03,
    "hypotheses.alternative_step_m": 0.5,
}
MODELS = "7scenes_sfm_triangulated"
DEPTH_HOME = "rendered depth: heidata.uni-heidelberg.de, data file 4037"
MAX_DEPTH_M = 1000.0
RETRIEVAL = ("7scenes_densevlad_retrieval_top_10", "7scenes_densevlad_retrieval")


class SevenScenes(Benchmark):
    """Seven rooms, filmed with a depth camera; only the colour images are used."""

    home = (
        "scenes: microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes; triangulated "
        "models: Google Drive 1cu6KUR7WHO7G4EO49Qi3HEKU6n_yYDjb; retrieval lists: "
        "1IbS2vLmxr1N0f3CEnd_wsYlgclwTyvB1; poses: github.com/tsattler/visloc_pseudo_gt_limitations"
    )
    scenes = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
    limits = (INDOOR[3], INDOOR[1])
    with_medians = True
    settings = INDOOR_SETTINGS

    def __init__(self, files: DatasetFiles):
        super().__init__(files)
        self.truth = _which_truth(files.ground_truth)
        self.title = f"7Scenes, {'SfM' if self.truth == 'sfm' else 'D-SLAM'} ground truth"
        tables = {"sfm": published.SEVEN_SCENES_SFM, "dslam": published.SEVEN_SCENES_DSLAM}
        self.published = tables[self.truth]

    def load(self, scene: str) -> Scene:
        """Read the queries and their true poses."""
        images = self.find(scene, what=f"the folder of the images of {scene}")
        lists = [f"{folder}/{scene}_top10.txt" for folder in RETRIEVAL]
        retrieval = self.retrieval(scene, *lists, f"{scene}/pairs-query-*.txt")
        load = self._by_model if self.files.ground_truth is None else self._by_lists
        loaded = load(scene, images)
        check_images(images, list(loaded.truth), self.home)
        return replace(loaded, retrieval=retrieval)

    def _by_model(self, scene: str, images: Path) -> Scene:
        """Read a triangulated model of training and test images; a list names the latter."""
        what = "model of all images"
        model_dir = self.find(f"{MODELS}/{scene}/triangulated", what=what)
        what = "names of the test images"
        names = hloc.read_names(
            self.find(f"{MODELS}/{scene}/triangulated/list_test.txt", what=what)
        )
        model = read_model(model_dir, with_points=False)
        posed = {image.name: image for image in model.images}
        if unposed := [name for name in names if name not in posed]:
            raise DataError(f"{model_dir} has no pose of {len(unposed)} queries: {unposed[0]}")
        return Scene(
            name=scene,
            map_name=scene if self.files.depth is None else f"{scene}_depth",
            queries=tuple(
                BenchmarkQuery(name, model.cameras[posed[name].camera_id], scene) for name in names
            ),
            query_images=images,
            reference_images=images,
            references=partial(self._training_model, scene, model_dir, names),
            truth={name: posed[name].T_cam_world for name in names},
        )

    def _training_model(self, scene: str, model_dir: Path, test: list[str]) -> ColmapModel:
        """Return the model without test images, and without points that only these observe."""
        model = read_model(self.model_folder(scene, lambda: model_dir))
        model = colmap_edit.without_images(model, set(test))
        if self.files.depth is None:
            return model
        return colmap_edit.with_depth(model, partial(_read_depth, self.files.depth, scene))

    def _by_lists(self, scene: str, images: Path) -> Scene:
        """Read poses and focal lengths of training and test images from their own lists."""
        assert self.files.ground_truth is not None
        train, test = (
            self.files.ground_truth / f"{scene}_{part}.txt" for part in ("train", "test")
        )
        truth, cameras = _posed_cameras(test, images)
        return Scene(
            name=scene,
            map_name=f"{scene}_{self.truth}",
            queries=tuple(BenchmarkQuery(name, cameras[name], scene) for name in truth),
            query_images=images,
            reference_images=images,
            references=partial(_posed_references, train, images),
            truth=truth,
        )


def _read_depth(folder: Path, scene: str, name: str) -> Matrix:
    """Read the rendered depth (H, W) of an image `seq-03/frame-000000.color.png`.

    It is in metres, NaN where unknown. Raises DataError if it is missing.
    """
    sequence, frame = name.split("/")
    file = f"{sequence.replace('-', '')}_{frame}".replace("color.png", "pose.depth.tiff")
    path = folder / f"7scenes_{scene}" / "train" / "depth" / file
    if not path.is_file():
        raise DataError(f"{path} is missing: depth of {name}; {DEPTH_HOME}")
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.ndim != 2:
        raise DataError(f"{path} is no depth image; {DEPTH_HOME}")
    depth_m = depth.astype(np.float64) / 1000
    return np.where((depth_m > 0) & (depth_m < MAX_DEPTH_M), depth_m, np.nan)


def _which_truth(folder: Path | None) -> str:
    if folder is None:
        return "dslam"
    names = [part for part in folder.parts if part in ("sfm", "dslam")]
    if not names:
        raise DataError(
            f"--ground-truth {folder}: give pgt/sfm/7scenes or pgt/dslam/7scenes of "
            f"github.com/tsattler/visloc_pseudo_gt_limitations"
        )
    return names[-1]


def _posed_references(file: Path, images: Path) -> tuple[PosedReference, ...]:
    poses, cameras = _posed_cameras(file, images)
    return tuple(PosedReference(name, cameras[name], T) for name, T in poses.items())


def _posed_cameras(file: Path, images: Path) -> tuple[dict, dict[str, Camera]]:
    """Return T_cam_world and camera by name; the principal point is the image centre."""
    poses = pose_lists.read_poses(file, extra_columns=1)
    focal_px = pose_lists.read_focal_lengths(file)
    first = images / next(iter(poses))
    size = image_files.read_size(first)
    if size is None:
        raise DataError(f"{first} is missing or no image; {SevenScenes.home}")
    width, height = size
    cameras = {
        name: Camera.from_colmap("SIMPLE_PINHOLE", width, height, [f, width / 2, height / 2])
        for name, f in focal_px.items()
    }
    return poses, cameras
