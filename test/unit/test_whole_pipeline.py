"""PixLoc as published: where the reference ended from the same images, points and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.published import write_checkpoint
from pixloc_ros.alignment.published import PublishedLocalizer, PublishedResult
from pixloc_ros.config.published import PublishedConfig
from pixloc_ros.features.vgg import vgg19
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel
from pixloc_ros.maps.files.hloc_logs import QueryLog
from pixloc_ros.maps.reference_selection import ReferenceModel

CASES = {
    "pyramid": "float64",
    "top_5": "float64",
    "refined": "float64",
    "single": "float32",  # which takes a third of the time
    "averaged": "float32",
    "refined_matched": "float32",
}
# Measured: 7e-8 m and 3e-7 deg in float64; the reference's own precisions are 1.2e-5 m apart.
NEAR_M = NEAR_DEG = {"float64": 1e-6, "float32": 1e-3}
MOVED_M = 0.05  # a pose that stays where it began is no result


class Scene:
    """What the reference was given: six references of a street with their points, one query."""

    def __init__(self, file: Path):
        self.data = dict(np.load(file))
        self.settings: dict[str, dict[str, Any]] = json.loads(str(self.data["settings"]))
        self.query = self.data["image_query"]
        height, width = self.query.shape[:2]
        self.camera = Camera.from_colmap("SIMPLE_RADIAL", width, height, self.data["camera"])
        self.names = [f"{i}.png" for i in range(len(self.data["images_reference"]))]
        self.known = ReferenceModel.of(self._model())

    def _model(self) -> ColmapModel:
        data, images = self.data, []
        for index, name in enumerate(self.names):
            points = data["observed_point"][data["observed_image"] == index]
            T_cam_world = data["T_cam_world_reference"][index]
            number, pixels = int(data["image_id"][index]), np.zeros((len(points), 2))
            images.append(ColmapImage(number, name, 1, T_cam_world, pixels, points))
        errors_px = np.zeros(len(data["point_ids"]))
        cameras, points_world = {1: self.camera}, data["points_world"]
        return ColmapModel(cameras, tuple(images), (), data["point_ids"], points_world, errors_px)

    def log(self) -> QueryLog:
        """What hloc knew of the query: a pose, matched points, and where they were seen."""
        data = self.data
        points, observed = data["log_points"].tolist(), data["log_observed"]
        seen = tuple(tuple(observed[observed[:, 0] == i, 1].tolist()) for i in range(len(points)))
        inliers = tuple(data["log_inliers"].tolist())
        ids = tuple(data["image_id"][:4].tolist())
        return QueryLog(data["log_T_cam_world"], ids, tuple(points), seen, inliers)

    def run(self, case: str, weights: Path, precision: str) -> PublishedResult:
        settings = self.settings[case]
        config = PublishedConfig(weights=str(weights), precision=precision, **settings)
        images = dict(zip(self.names, self.data["images_reference"], strict=True))
        localizer = PublishedLocalizer(config, self.known, images.__getitem__)
        if "points" in settings:
            return localizer.refine(self.query, self.camera, self.log())
        similarity = self.data["similarity"].tolist()
        return localizer.localize(self.query, self.camera, self.names, similarity)


@pytest.fixture(scope="module")
def scene(parity: Path) -> Scene:
    return Scene(parity / "whole_pipeline.npz")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("vgg") / "checkpoint_best.tar", vgg19())


@pytest.mark.slow
@pytest.mark.parametrize(("case", "precision"), CASES.items())
def test_the_pose_is_that_of_the_reference(case, precision, scene, weights):
    found = scene.run(case, weights, precision)
    expected = scene.data[f"{case}_{precision}_T_refined"]
    assert found.success and bool(scene.data[f"{case}_{precision}_success"])
    T_cam_world, wanted = se3.inverse(found.T_cam_world), se3.inverse(expected)
    assert se3.distance_m(T_cam_world, wanted) < NEAR_M[precision]
    assert se3.angle_deg(T_cam_world, wanted) < NEAR_DEG[precision]
    assert se3.distance_m(T_cam_world, se3.inverse(found.T_cam_world_initial)) > MOVED_M
