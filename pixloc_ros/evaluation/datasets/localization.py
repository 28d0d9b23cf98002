"""Localize the queries of a scene in batches, by one or several workers, and store the results.

Results are appended to a file as they come, so that an interrupted run can be continued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pixloc_ros.common import image_files
from pixloc_ros.common.foreign_files import confined
from pixloc_ros.common.parallel import Workers
from pixloc_ros.common.progress import Progress, keeping, silent
from pixloc_ros.config import Config
from pixloc_ros.errors import DataError
from pixloc_ros.evaluation.datasets.protocol import BenchmarkQuery, Retrieval, Scene
from pixloc_ros.evaluation.frames import (
    FrameResult,
    PriorRecord,
    frame_result,
)
from pixloc_ros.evaluation.partial_run import ResumableRun
from pixloc_ros.image_pyramid import PyramidLocalizer
from pixloc_ros.localizer import Localizer
from pixloc_ros.maps.map import Map
from pixloc_ros.priors import file_priors
from pixloc_ros.priors.global_prior import GlobalPrior, KeyframePairs
from pixloc_ros.types import Estimate, Frame, PosePrior, Reason, Status

BATCH = 16  # queries passed to a worker at once


@dataclass(frozen=True, slots=True)
class QueryTask:
    """One query with all that a worker needs, which may run on a machine without the dataset."""

    query: BenchmarkQuery
    index: int
    image: bytes  # content of the image file
    priors: tuple[PosePrior, ...]  # if empty, the map is searched
    other_images: tuple[bytes, ...] = ()  # contents of the files of query.others


class QueryLocalizer(Protocol):
    """Finds the pose of a query."""

    def localize(
        self, frame: Frame, priors: Sequence[PosePrior], other_cameras: Sequence[Frame]
    ) -> Estimate: ...


class Recipe(Hashable, Protocol):
    """What a worker creates its localizer from; hashable, so that each worker does it only once."""

    def open(self) -> QueryLocalizer: ...


@dataclass(frozen=True, slots=True)
class MapRecipe:
    """Creates this package's localizer from map folders that all workers can read.

    configs_json: one configuration per map of the place, the one with the smallest images first.
    """

    configs_json: tuple[str, ...]

    def open(self) -> QueryLocalizer:
        """Open the maps and the network."""
        configs = [Config.model_validate_json(each) for each in self.configs_json]
        return _OnMap(PyramidLocalizer(tuple(Localizer(config) for config in configs)))


@dataclass(frozen=True, slots=True)
class _OnMap:
    localizer: PyramidLocalizer

    def localize(
        self, frame: Frame, priors: Sequence[PosePrior], other_cameras: Sequence[Frame]
    ) -> Estimate:
        prior = priors[0] if len(priors) == 1 else priors
        return self.localizer.localize(frame, prior, other_cameras)


def global_prior(
    retrieval: Retrieval, map_: Map, names: Sequence[str], config: Config
) -> GlobalPrior | None:
    """Return what proposes poses of the queries: the given files; None: the map is searched."""
    if retrieval.nearest:
        keyframe_of = {name: index for index, name in enumerate(map_.keyframe_names)}
        known = {q: [keyframe_of[r]] for q, r in retrieval.nearest.items() if r in keyframe_of}
        if not known:
            reference = next(iter(retrieval.nearest.values()))
            raise DataError(f"no reference given with a query is in the map, as '{reference}'")
        return KeyframePairs(map_, config.retrieval, known)
    if retrieval.descriptors:
        return file_priors.read_descriptors(
            map_, retrieval.descriptors, names, config.retrieval, retrieval.among
        )
    if retrieval.pairs:
        return file_priors.read_pairs(map_, retrieval.pairs, names, config.retrieval)
    return None


def localize_scene(
    scene: Scene,
    recipe: Recipe,
    prior: GlobalPrior | None,
    folder: Path,
    settings: dict[str, Any],
    workers: Workers,
    progress: Progress = silent,
) -> list[FrameResult]:
    """Localize the queries that have no results in the folder yet; return the results of all.

    settings: everything that results depend on. Raises DataError if the folder's results depend on
    other settings.
    """
    run = ResumableRun(folder, settings)
    left = [(i, q) for i, q in enumerate(scene.queries) if q.name not in run.done]
    batches = (
        (recipe, tuple(_task(scene, i, query, prior) for i, query in left[at : at + BATCH]))
        for at in range(0, len(left), BATCH)
    )
    found = (result for batch in workers.map(localize_batch, batches) for result in batch)
    with keeping(run.note):
        for result in progress(found, f"localizing {scene.name}", len(left)):
            run.add(result)
    return [run.done[query.name] for query in scene.queries if query.name in run.done]


def localize_batch(recipe: Recipe, tasks: Sequence[QueryTask]) -> list[FrameResult]:
    """Localize some queries: the work of one worker."""
    localizer = _open(recipe)
    return [_result(localizer, task) for task in tasks]


@lru_cache(maxsize=1)
def _open(recipe: Recipe) -> QueryLocalizer:
    return recipe.open()


def _result(localizer: QueryLocalizer, task: QueryTask) -> FrameResult:
    """Return the record of a query; one without a result keeps the first of its priors."""
    found = frame_result(_localize(localizer, task))
    if found.prior is not None or not task.priors:
        return found
    return found.model_copy(update={"prior": PriorRecord.of(task.priors[0])})


def _localize(localizer: QueryLocalizer, task: QueryTask) -> Estimate:
    image_rgb = image_files.decode(task.image)
    if image_rgb is None:
        return Estimate(
            Status.FAILED, Reason.BAD_IMAGE, "cannot be decoded", task.index, task.query.name
        )
    query = task.query
    frame = Frame(image_rgb, query.camera, task.index, np.eye(4), query.name, query.camera_name)
    return localizer.localize(frame, task.priors, list(_other_cameras(task)))


def _other_cameras(task: QueryTask) -> Iterator[Frame]:
    """Yield the frames of a rig's other cameras, as far as they can be decoded."""
    for other, content in zip(task.query.others, task.other_images, strict=True):
        image_rgb = image_files.decode(content)
        if image_rgb is not None:
            T, name = other.T_query_cam, other.camera_name
            yield Frame(image_rgb, other.camera, task.index, T, other.name, name)


def _task(scene: Scene, index: int, query: BenchmarkQuery, prior: GlobalPrior | None) -> QueryTask:
    content, *others = (_content(scene, name) for name in _names(query))
    pixel = np.zeros((1, 1, 3), np.uint8)  # a placeholder: priors from files only need the name
    frame = Frame(pixel, query.camera, index, np.eye(4), query.name)
    priors = tuple(prior.propose(frame)) if prior else ()
    return QueryTask(query, index, content, priors, tuple(others))


def _names(query: BenchmarkQuery) -> list[str]:
    return [query.name, *(other.name for other in query.others)]


def _content(scene: Scene, name: str) -> bytes:
    path = confined(scene.query_images, name, DataError)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def map_settings(maps: Sequence[Map], config: Config, retrieval: Retrieval) -> dict[str, Any]:
    """Return everything that results on a place's maps depend on; `config` has the last map."""
    files = [path for path in (retrieval.pairs, *retrieval.descriptors) if path is not None]
    smaller = {"smaller_maps": [map_.sha256 for map_ in maps[:-1]]} if len(maps) > 1 else {}
    return {
        **smaller,
        "map": maps[-1].sha256,
        "retrieval": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        "config": config.model_dump(mode="json", exclude={"map", "device", "threads", "node"}),
    }
