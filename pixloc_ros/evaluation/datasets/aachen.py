"""Aachen Day-Night v1.0 and v1.1. Only the benchmark's server knows the true poses of queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pixloc_ros.evaluation.datasets import published, submission
from pixloc_ros.evaluation.datasets.protocol import (
    Benchmark,
    BenchmarkQuery,
    Poses,
    Scene,
    check_images,
)
from pixloc_ros.evaluation.datasets.scores import OUTDOOR
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.maps.files.nvm import read_nvm

IMAGES = ("images_upright", "images/images_upright")


class Aachen(Benchmark):
    """Version 1.0: an NVM file has the references' poses, another file their intrinsics."""

    title = "Aachen Day-Night v1.0"
    home = (
        "data.ciirc.cvut.cz/public/projects/2020VisualLocalization/Aachen-Day-Night/ "
        "(images/database_and_query_images.zip, aachen_v1_1.zip, queries/, 3D-models/)"
    )
    scenes = ("day", "night")
    limits = OUTDOOR
    with_medians = False
    published = published.AACHEN
    map_name = "aachen"
    pairs = ("pairs-query-netvlad50.txt", "pairs-query-*.txt")

    def is_present(self, scene: str) -> bool:
        return True

    def load(self, scene: str) -> Scene:
        """Read the queries of day or night.

        They come from the official lists, because the folders hold images that are not scored.
        """
        images = self.find(*IMAGES, what="the folder of all images")
        lists = self.find(f"queries/{scene}_time_queries_with_intrinsics.txt", what="queries")
        cameras = hloc.read_cameras(lists)
        check_images(images, list(cameras), self.home)
        return Scene(
            name=scene,
            map_name=self.map_name,
            queries=tuple(BenchmarkQuery(name, camera, scene) for name, camera in cameras.items()),
            query_images=images,
            reference_images=images,
            references=self.references,
            truth={},
            retrieval=self.retrieval(scene, *self.pairs),
        )

    def references(self) -> ColmapModel:
        """Return the database images, or the model that the user gave."""
        if self.files.model:
            return read_model(self.model_folder("", lambda: self.files.root))
        return self.official_model()

    def official_model(self) -> ColmapModel:
        nvm = self.find("3D-models/aachen_cvpr2018_db.nvm", what="poses of the database images")
        what = "intrinsics of the database images"
        cameras = hloc.read_cameras(self.find("3D-models/database_intrinsics.txt", what=what))
        return read_nvm(nvm, cameras)

    def write_submission(self, folder: Path, poses: Mapping[str, Poses]) -> list[Path]:
        """Write day and night to one file; a file with night alone scores 0 / 0 / 0 by day."""
        together = {name: T for of_scene in poses.values() for name, T in of_scene.items()}
        return [submission.write(folder / "Aachen_eval_pixloc_ros.txt", together)]


class AachenV11(Aachen):
    """Version 1.1: a larger model in COLMAP's format, and more night queries."""

    title = "Aachen Day-Night v1.1"
    published = published.AACHEN_V11
    map_name = "aachen_v1.1"

    def official_model(self) -> ColmapModel:
        """Read the model, which needs no changes."""
        return read_model(self.find("3D-models/aachen_v_1_1", what="model of the database images"))
