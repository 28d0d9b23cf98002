"""COLMAP's own steps, by pycolmap: keypoints, matches, and points for given poses."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.progress import Progress
from pixloc_ros.errors import MapError
from pixloc_ros.geometry import se3
from pixloc_ros.geometry.camera import Camera
from pixloc_ros.geometry.se3 import Matrix
from pixloc_ros.maps.build.pose_check import Matches
from pixloc_ros.maps.files.colmap import ColmapModel, read_model
from pixloc_ros.maps.files.posed_images import PosedImage

CHUNK = 8  # images or pairs between two steps of the progress bar
THREADS = 2
SEED = 0
LOSS_PX = 1.0  # residuals beyond it count less (Cauchy) where points and poses are adjusted
ITERATIONS = 50  # of an adjustment


class ColmapRun:
    """One run of COLMAP in a folder of its own: links, database, model.

    COLMAP itself leaves out the images and pairs that its database has. All methods raise MapError
    where COLMAP fails, and so does the first use without pycolmap.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[PosedImage],
        progress: Progress,
        mask: Path | None = None,
    ) -> None:
        """mask: an image of the size of all others, black where no keypoints are wanted."""
        self.pycolmap, self.folder, self.images = _import_pycolmap(), folder, images
        self.progress, self.mask = progress, mask
        self.database = folder / "database.db"
        # Lists of pairs are separated by spaces, so names must have none.
        self.names = [f"{i:08d}{image.path.suffix}" for i, image in enumerate(images)]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for name, image in zip(self.names, images, strict=True):
            (folder / "images" / name).unlink(missing_ok=True)
            (folder / "images" / name).symlink_to(image.path.resolve())

    def number(self, name: str) -> int:
        """The index of an image in `images`, by its name in the database."""
        return int(Path(name).stem)

    def extract(self) -> None:
        """Find the keypoints of all images."""
        by_camera: dict[str, list[str]] = defaultdict(list)
        for name, image in zip(self.names, self.images, strict=True):
            by_camera[repr(image.camera.to_colmap())].append(name)
        chunks = [
            (names[0], names[start : start + CHUNK])
            for names in by_camera.values()
            for start in range(0, len(names), CHUNK)
        ]
        for first, names in self.progress(chunks, "Finding keypoints", len(chunks)):
            camera = self.images[self.number(names[0])].camera
            self._extract(names, camera, self._camera_id(first))

    def _camera_id(self, name: str) -> int:
        """Of an image in the database, -1 where it is not there yet."""
        with self.pycolmap.Database.open(self.database) as database:
            if not database.exists_image(name):
                return -1
            return database.read_image_with_name(name).camera_id

    def _extract(self, names: Sequence[str], camera: Camera, camera_id: int) -> None:
        model, _, _, params = camera.to_colmap()
        reader = self.pycolmap.ImageReaderOptions()
        reader.camera_model, reader.camera_params = model, ",".join(map(repr, params))
        reader.existing_camera_id = camera_id
        if self.mask is not None:
            reader.camera_mask_path = self.mask
        options = self.pycolmap.FeatureExtractionOptions()
        options.use_gpu, options.num_threads = False, 1  # which finish first get the first ids
        with self.quiet():
            self.pycolmap.extract_features(
                self.database,
                self.folder / "images",
                image_names=names,
                camera_mode=self.pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=options,
            )

    def match(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Match pairs of images, given by their numbers, and verify the matches."""
        matching = self.pycolmap.FeatureMatchingOptions()
        matching.use_gpu, matching.num_threads = False, THREADS
        verification = self.pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = SEED
        listed = self.pycolmap.ImportedPairingOptions()
        listed.match_list_path = self.folder / "pairs.txt"
        chunks = [pairs[start : start + 4 * CHUNK] for start in range(0, len(pairs), 4 * CHUNK)]
        for chunk in self.progress(chunks, "Matching images", len(chunks)):
            lines = (f"{self.names[i]} {self.names[j]}" for i, j in chunk)
            (self.folder / "pairs.txt").write_text("\n".join(lines) + "\n")
            with self.quiet():
                self.pycolmap.match_image_pairs(
                    self.database,
                    matching_options=matching,
                    pairing_options=listed,
                    verification_options=verification,
                )

    def matches(self) -> list[Matches]:
        """What every pair shares, in the normalised image plane."""
        found = []
        with self.pycolmap.Database.open(self.database) as database:
            keypoints = {}
            for image in database.read_all_images():
                camera = database.read_camera(image.camera_id)
                pixels = database.read_keypoints(image.image_id)[:, :2].astype(np.float64)
                rays = camera.cam_from_img(pixels).astype(np.float64)
                keypoints[image.image_id] = (
                    self.number(image.name),
                    rays,
                    camera.mean_focal_length(),
                )
            for pair, geometry in zip(*database.read_two_view_geometries(), strict=True):
                index = np.asarray(geometry.inlier_matches)
                if not len(index):
                    continue
                first, second = self.pycolmap.pair_id_to_image_pair(pair)
                (i, rays_i, focal_i), (j, rays_j, focal_j) = keypoints[first], keypoints[second]
                found.append(
                    Matches(
                        first=i,
                        second=j,
                        rays_first=rays_i[index[:, 0]],
                        rays_second=rays_j[index[:, 1]],
                        focal_px=(focal_i + focal_j) / 2,
                    )
                )
        return found

    def triangulate(self, T_map_cam: NDArray[np.float64]) -> ColmapModel:
        """The model of all matches for poses (N, 4, 4) of the images, which stay as they are."""
        self.reconstruct(T_map_cam)
        return read_model(self.folder / "model")

    def reconstruct(
        self, T_map_cam: NDArray[np.float64], placed: NDArray[np.bool_] | None = None
    ) -> Any:
        """As triangulate, as a pycolmap.Reconstruction; of some images only, where (N,) says so."""
        output = self.folder / "model"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        options = self.pycolmap.IncrementalPipelineOptions()
        options.extract_colors, options.num_threads, options.random_seed = False, THREADS, SEED
        options.triangulation.random_seed = SEED
        with self.quiet():
            model = self.pycolmap.triangulate_points(
                self._posed(T_map_cam, placed),
                self.database,
                self.folder / "images",
                output,
                options=options,
            )
        if not model.num_points3D():
            raise MapError(
                "no point could be triangulated: do the images overlap, and do the cameras move?"
            )
        return model

    def _posed(self, T_map_cam: NDArray[np.float64], placed: NDArray[np.bool_] | None) -> Any:
        model = self.pycolmap.Reconstruction()
        with self.pycolmap.Database.open(self.database) as database:
            for camera in database.read_all_cameras():
                model.add_camera(camera)
            for rig in database.read_all_rigs():
                model.add_rig(rig)
            images = database.read_all_images()
            number = {image.frame_id: self.number(image.name) for image in images}
            for frame in database.read_all_frames():
                index = number[frame.frame_id]
                if placed is None or placed[index]:  # COLMAP registers all frames that have a pose
                    T_cam_map = se3.inverse(T_map_cam[index])
                    frame.rig_from_world = self.pycolmap.Rigid3d(T_cam_map[:3])
                model.add_frame(frame)
            for image in images:
                model.add_image(image)
        return model

    def camera(self, camera: Camera) -> Any:
        """A calibration as a pycolmap.Camera."""
        model, width, height, params = camera.to_colmap()
        return self.pycolmap.Camera(model=model, width=width, height=height, params=params)

    def adjustment_options(self, refine_cameras: bool = False) -> Any:
        """pycolmap.BundleAdjustmentOptions: robust, with the calibrations as they are, or not."""
        options = self.pycolmap.BundleAdjustmentOptions()
        options.print_summary = False
        options.refine_focal_length = options.refine_extra_params = refine_cameras
        options.refine_principal_point = options.refine_sensor_from_rig = False
        options.ceres.loss_function_type = self.pycolmap.LossFunctionType.CAUCHY
        options.ceres.loss_function_scale = LOSS_PX
        options.ceres.solver_options.max_num_iterations = ITERATIONS
        options.ceres.solver_options.function_tolerance = 1e-6
        options.ceres.solver_options.num_threads = THREADS
        return options

    def poses(self, reconstruction: Any, before: Matrix) -> Matrix:
        """T_map_cam (N, 4, 4) of the images; as before where a reconstruction lacks one."""
        T_map_cam = before.copy()
        for image_id in reconstruction.reg_image_ids():
            image = reconstruction.image(image_id)
            T_map_cam[self.number(image.name)] = se3.inverse(matrix(image.cam_from_world()))
        return T_map_cam

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """COLMAP logs to stderr, where the progress bar is; its exceptions become MapError."""
        logging = self.pycolmap.logging
        level, logging.minloglevel = logging.minloglevel, logging.ERROR.value
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise MapError(f"pycolmap failed: {' '.join(str(error).split())}") from None
        finally:
            logging.minloglevel = level


def matrix(rigid: Any) -> Matrix:
    """A pycolmap.Rigid3d as (4, 4)."""
    return np.vstack([rigid.matrix(), [0.0, 0.0, 0.0, 1.0]])


def _import_pycolmap() -> ModuleType:
    try:
        import pycolmap
    except ImportError:
        raise MapError(
            "posed images are triangulated by pycolmap, which is not installed: "
            "pip install pycolmap, or give a COLMAP model"
        ) from None
    return pycolmap
