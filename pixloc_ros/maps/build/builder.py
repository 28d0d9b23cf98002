"""From a COLMAP model and its images to a map with precomputed reference features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from pixloc_ros.common.arguments import Arguments
from pixloc_ros.common.parallel import Workers
from pixloc_ros.common.progress import Progress, silent
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.geometry import se3
from pixloc_ros.maps.build import feature_extraction, writer
from pixloc_ros.maps.build.depth_uncertainty import model_depth_sigmas
from pixloc_ros.maps.build.feature_extraction import ImageTask
from pixloc_ros.maps.build.work_folder import Parts, work_folder
from pixloc_ros.maps.build.workers import extract_all
from pixloc_ros.maps.datum import AnyDatum
from pixloc_ros.maps.feature_store import Arrays, FeatureStore, covisibility, create
from pixloc_ros.maps.files.colmap import ColmapImage, ColmapModel
from pixloc_ros.maps.map import Map, pack_names
from pixloc_ros.maps.schema import ROW_TYPE, TILE_M, CameraEntry, RowType, Storage

Axes = Literal["keep", "optical_to_ros"]
HALF_TRACK = 3.0  # a track of this length has half the priority that an endless one would have


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a map is made of a model."""

    features: Storage = "observations"
    row_type: RowType = ROW_TYPE
    tile_m: float = TILE_M  # side of a tile; 0: all in one
    min_track_length: int = 3  # images of the model that see a point
    max_error_px: float = 4.0  # between a keypoint and its projected point
    keyframe_step: int = 1  # take every n-th image by name
    axes: Axes = "keep"
    datum: AnyDatum | None = None
    T_base_cam: NDArray[np.float64] | None = None
    overwrite: bool = False
    workers: Workers = field(default_factory=Workers)  # of no effect on the map

    def __post_init__(self) -> None:
        """Raise MapError for a value that cannot be."""
        arguments = Arguments("BuildOptions", MapError)
        for name, known in (("features", Storage), ("row_type", RowType), ("axes", Axes)):
            value, choices = getattr(self, name), get_args(known)
            arguments.require(value in choices, name, value, " or ".join(choices))
        if self.tile_m != 0:
            arguments.positive("tile_m", self.tile_m)
        arguments.positive("max_error_px", self.max_error_px)
        arguments.count("min_track_length", self.min_track_length)
        arguments.count("keyframe_step", self.keyframe_step)
        arguments.require(
            isinstance(self.datum, AnyDatum | None), "datum", self.datum, "as Datum.parse makes it"
        )
        T = self.T_base_cam
        arguments.require(T is None or np.shape(T) == (4, 4), "T_base_cam", T, "a pose (4, 4)")
        fits = isinstance(self.workers, Workers)
        arguments.require(fits, "workers", self.workers, "Workers(count)")

    @property
    def T_map_world(self) -> NDArray[np.float64]:
        """(4, 4); world is the model's. Its optical axes become REP-103 axes when asked for."""
        return se3.base_from_optical() if self.axes == "optical_to_ros" else np.eye(4)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a build gives its source to work with."""

    work: Path  # folder for results that the next try can use, should this one be interrupted
    progress: Progress = silent
    report: Callable[[str], None] = lambda line: None


class MapSource(Protocol):
    """What a map can be built from; maps/build/sources.py has those that exist."""

    @property
    def images(self) -> str | Path:
        """Folder that the names of the model's images start from; asked for after `model`."""

    def model(
        self, options: BuildOptions, context: BuildContext
    ) -> tuple[ColmapModel, BuildOptions]:
        """Return images, points and who sees which, and the options that are left to apply."""


def build_map(
    source: MapSource,
    output: str | Path,
    options: BuildOptions | None = None,
    extractor: FeatureExtractor | None = None,
    progress: Progress = silent,
    report: Callable[[str], None] = lambda line: None,
) -> Map:
    """Build a map folder at `output` and open it.

    source: a DriveSource, ColmapSource, PosedImagesSource, LidarSource, MeshSource or
    DepthImagesSource.
    extractor: the network that sees the images, by default the packaged one on the CPU.
    progress: passes on the items of whatever takes long, as a progress bar does.
    report: receives a line on how well images, poses and points agree.
    A build that was interrupted continues when it is called again.
    Raises MapError or DataError for a source or an output that cannot be used; then no map is
    written.
    """
    options = BuildOptions() if options is None else options
    arguments = Arguments("build_map", MapError)
    is_source = not isinstance(source, type) and hasattr(source, "model")
    example = "a source such as ColmapSource(model_dir=..., images=...)"
    arguments.require(is_source, "source", source, example)
    arguments.path("output", output)
    arguments.require(isinstance(options, BuildOptions), "options", options, "BuildOptions")
    fits = isinstance(extractor, FeatureExtractor | None)
    arguments.require(fits, "extractor", extractor, "a FeatureExtractor")
    writer.check_output(output, options.overwrite)
    with work_folder(output) as work:
        model, options_left = source.model(options, BuildContext(work, progress, report))
        return build_from_model(
            model,
            source.images,
            output,
            extractor or FeatureExtractor(),
            options_left,
            progress,
            work,
        )


def build_from_model(
    model: ColmapModel,
    images_dir: str | Path,
    output: str | Path,
    extractor: FeatureExtractor,
    options: BuildOptions,
    progress: Progress = silent,
    work: Path | None = None,
) -> Map:
    """Build a map from a model in memory, wherever its points come from.

    work: the work_folder of a build that has begun. Features that an interrupted build has
    extracted there are used again where image and points are unchanged.
    """
    writer.check_output(output, options.overwrite)
    with nullcontext(work) if work else work_folder(output) as folder:
        return _build(model, Path(images_dir), output, extractor, options, progress, Parts(folder))


def _build(
    model: ColmapModel,
    images_dir: Path,
    output: str | Path,
    extractor: FeatureExtractor,
    options: BuildOptions,
    progress: Progress,
    parts: Parts,
) -> Map:
    images = model.images[:: options.keyframe_step]
    paths = feature_extraction.find_images(images, images_dir)
    store, descriptors = _collect(model, images, paths, extractor, options, progress, parts)
    T_map_cam = options.T_map_world @ se3.inverse([image.T_cam_world for image in images])
    writer.save(
        {
            "keyframe_T_map_cam": T_map_cam,
            "keyframe_descriptors": descriptors,
            **_keyframe_arrays(images, model, store),
        },
        {**_point_arrays(model, store, options.T_map_world), **store.row_arrays()},
        _metadata(model, extractor, options),
        output,
        options.overwrite,
    )
    return Map.load(output, verify=False)


def _collect(
    model: ColmapModel,
    images: Sequence[ColmapImage],
    paths: Sequence[Path],
    extractor: FeatureExtractor,
    options: BuildOptions,
    progress: Progress,
    parts: Parts,
) -> tuple[FeatureStore, NDArray[np.float16]]:
    store = create(options.features, len(model.point_ids), extractor.dims)
    usable = _usable_points(model, options.min_track_length)
    visible = [
        feature_extraction.visible_points(i, model, usable, options.max_error_px) for i in images
    ]
    if not any(len(points) for points, _ in visible):
        raise MapError(
            f"the model has no point seen by {options.min_track_length} images within "
            f"{options.max_error_px:g} px; reconstruct it again, or ask for less"
        )
    cameras = [model.cameras[image.camera_id] for image in images]
    tasks = [
        ImageTask(path, (camera.width, camera.height), pixels)
        for path, camera, (_, pixels) in zip(paths, cameras, visible, strict=True)
    ]
    descriptors = []
    extracted = _extract_features(tasks, extractor, options.workers, progress, parts)
    for (points, _), arrays in zip(visible, extracted, strict=True):
        store.add(points, *feature_extraction.by_level(arrays))
        descriptors.append(arrays["descriptor"])
    return store, np.stack(descriptors)


def _extract_features(
    tasks: Sequence[ImageTask],
    extractor: FeatureExtractor,
    workers: Workers,
    progress: Progress,
    parts: Parts,
) -> Iterator[Arrays]:
    """Features of each image, kept as a part: from the last build, or extracted by the workers."""
    keyed = [(task.key(extractor), task) for task in tasks]
    missing = {key: task for key, task in keyed if key not in parts}
    found = extract_all(list(missing.values()), extractor, workers)
    for key, _ in progress(keyed, "Extracting features", len(keyed)):
        if key not in parts:
            parts.put(key, next(found))
        yield parts.get(key)


def _usable_points(model: ColmapModel, min_track_length: int) -> NDArray[np.bool_]:
    lengths = np.zeros(len(model.point_ids), np.int64)
    for image in model.images:
        ids = np.unique(image.point_ids[image.point_ids >= 0])
        lengths[np.searchsorted(model.point_ids, ids)] += 1
    return (lengths >= min_track_length) & np.isfinite(model.points_world).all(-1)


def _keyframe_arrays(
    images: Sequence[ColmapImage], model: ColmapModel, store: FeatureStore
) -> Arrays:
    camera_ids = list(model.cameras)
    observations = store.observation_arrays()
    depths = [image.depth_m for image in images if image.depth_m is not None]
    return {
        **({"keyframe_depth_m": np.stack(depths)} if len(depths) == len(images) else {}),
        "keyframe_names": pack_names([image.name for image in images]),
        "keyframe_camera": np.array([camera_ids.index(i.camera_id) for i in images], np.int32),
        **observations,
        **covisibility(observations["observation_offsets"], observations["observation_point"]),
    }


def _point_arrays(
    model: ColmapModel, store: FeatureStore, T_map_world: NDArray[np.float64]
) -> Arrays:
    counts = store.counts[store.kept]
    priority = store.mean_confidence * counts / (counts + HALF_TRACK)
    return {
        "points": se3.transform(T_map_world, model.points_world[store.kept]),
        "point_error_px": model.errors_px[store.kept].astype(np.float32),
        "point_priority": priority.astype(np.float32),
        "point_depth_sigma": model_depth_sigmas(model)[store.kept],
    }


def _metadata(
    model: ColmapModel, extractor: FeatureExtractor, options: BuildOptions
) -> dict[str, Any]:
    T_base_cam = options.T_base_cam
    return {
        "axes": options.axes,
        "T_map_world": tuple(options.T_map_world.ravel().tolist()),
        "datum": options.datum,
        "T_base_cam": None if T_base_cam is None else tuple(T_base_cam.ravel().tolist()),
        "model_id": extractor.model_id,
        "weights_sha256": extractor.sha256,
        "max_side_px": extractor.max_side_px,
        "strides": extractor.strides,
        "dims": extractor.dims,
        "storage": options.features,
        "row_type": options.row_type,
        "tile_m": options.tile_m,
        "cameras": tuple(CameraEntry.of(camera) for camera in model.cameras.values()),
    }
