"""Cambridge Landmarks, evaluated like hloc and PixLoc: against the retriangulated models.

These were made from images of 1024 px, while the files are 1920x1080, and each image has its own
focal length. So cameras are scaled to the files, and those of queries come from the ground truth.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets import published
from pixloc_ros.evaluation.datasets.protocol import (
    Benchmark,
    BenchmarkQuery,
    Scene,
    check_images,
)
from pixloc_ros.evaluation.datasets.scores import INDOOR, OUTDOOR
from pixloc_ros.maps.files import colmap_edit, hloc
from pixloc_ros.maps.files.colmap import ColmapModel, read_model

MODELS = "CambridgeLandmarks_Colmap_Retriangulated_1024px"


class Cambridge(Benchmark):
    """Five outdoor scenes, photographed with a phone."""

    title = "Cambridge Landmarks"
    home = (
        "scenes: repository.cam.ac.uk/handle/1810/ 251342 (KingsCollege), 251340 (OldHospital), "
        "251294 (StMarysChurch), 251336 (ShopFacade), 251291 (GreatCourt); models: Google Drive "
        "1esqzZ1zEQlzZVic-H32V6kkZvc4NeS15"
    )
    scenes = (
        "GreatCourt",
        "KingsCollege",
        "OldHospital",
        "ShopFacade",
        "StMarysChurch",
    )
    limits = (INDOOR[3], *OUTDOOR)
    with_medians = True
    published = published.CAMBRIDGE

    def load(self, scene: str) -> Scene:
        """Read the queries and their true poses."""
        images = self.find(scene, what=f"the folder of the images of {scene}")
        truth_folder = self.find(f"{MODELS}/{scene}/empty_all", what="poses of all images")
        names = hloc.read_names(
            self.find(f"{MODELS}/{scene}/list_query.txt", what="names of the test images")
        )
        check_images(images, names, self.home)
        truth = read_model(truth_folder, with_points=False)
        posed = {image.name: image for image in truth.images}
        if unposed := [name for name in names if name not in posed]:
            raise DataError(f"{truth_folder} has no pose of {len(unposed)} queries: {unposed[0]}")
        camera_of = {name: posed[name].camera_id for name in names}
        sizes = colmap_edit.file_sizes(camera_of, images)
        queries = (
            BenchmarkQuery(
                name, colmap_edit.resized(truth.cameras[i], sizes[i], images), group=scene
            )
            for name, i in camera_of.items()
        )
        return Scene(
            name=scene,
            map_name=scene,
            queries=tuple(queries),
            query_images=images,
            reference_images=images,
            references=partial(self._references, scene, images),
            truth={name: posed[name].T_cam_world for name in names},
            retrieval=self.retrieval(scene, f"{scene}/pairs-query-*.txt"),
        )

    def _references(self, scene: str, images: Path) -> ColmapModel:
        """Return the SIFT model of the training images, or the model that the user gave."""
        official = partial(
            self.find, f"{MODELS}/{scene}/model_train", what="SIFT model of the training images"
        )
        model = read_model(self.model_folder(scene, official))
        return colmap_edit.resized_to_files(model, images)
