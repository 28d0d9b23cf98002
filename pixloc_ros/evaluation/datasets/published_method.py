"""Run PixLoc as published on a benchmark: from ranked references, or refining hloc's poses.

There is no map: every worker reads the references from the benchmark's files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pixloc_ros.alignment.published import PublishedLocalizer
from pixloc_ros.config.published import PublishedConfig
from pixloc_ros.errors import ConfigError, DataError
from pixloc_ros.evaluation.datasets import catalogue
from pixloc_ros.evaluation.datasets.localization import QueryLocalizer
from pixloc_ros.evaluation.datasets.protocol import DatasetFiles, Retrieval
from pixloc_ros.evaluation.published import ByReferences, RankedReferences, Refining, read_image
from pixloc_ros.maps.files import hloc
from pixloc_ros.maps.files.colmap import ColmapModel
from pixloc_ros.maps.files.hloc_logs import read_logs
from pixloc_ros.maps.reference_selection import ReferenceModel


@dataclass(frozen=True, slots=True)
class PublishedRecipe:
    """Creates the published localizer of a scene. inliers: hloc's log, whose poses are refined."""

    dataset: str
    files: DatasetFiles
    scene: str
    config_json: str
    inliers: Path | None = None

    def open(self) -> QueryLocalizer:
        """Read the references. Raises DataError if they have no points."""
        config = PublishedConfig.model_validate_json(self.config_json)
        scene = catalogue.open_dataset(self.dataset, self.files).load(self.scene)
        references = scene.references()
        if not isinstance(references, ColmapModel):
            raise DataError("--published needs references with points: give --model")
        localizer = PublishedLocalizer(
            config, ReferenceModel.of(references), partial(read_image, scene.reference_images)
        )
        if self.inliers is not None:
            return Refining(localizer, read_logs(self.inliers))
        queries = [query.name for query in scene.queries]
        ranked = rank_references(scene.retrieval, localizer.known, queries, config)
        return ByReferences(localizer, ranked)

    def settings(self, retrieval: Retrieval) -> dict[str, Any]:
        """Return everything that results depend on, except the references."""
        config = PublishedConfig.model_validate_json(self.config_json)
        files = [retrieval.pairs, *retrieval.descriptors, self.inliers]
        return {
            "method": "published",
            "model": self.files.model,
            "retrieval": [hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f],
            "config": config.model_dump(mode="json", exclude={"device"}),
        }


def rank_references(
    retrieval: Retrieval, known: ReferenceModel, queries: Sequence[str], config: PublishedConfig
) -> dict[str, RankedReferences]:
    """Return references by query: from a list of pairs, from descriptors, or given with the query.

    Raises ConfigError if there is none of these, or no descriptors for a mean initial pose, and
    DataError if no query has a reference in the model.
    """
    if config.mean_initial_pose and not retrieval.descriptors:
        raise ConfigError("mean_initial_pose weights references by --descriptors: give them")
    if not (retrieval.nearest or retrieval.pairs or retrieval.descriptors):
        raise ConfigError("--published needs ranked references: give --pairs or --descriptors")
    listed: Mapping[str, Sequence[str]] = {q: [r] for q, r in retrieval.nearest.items()}
    if retrieval.pairs:
        listed = hloc.read_pairs(retrieval.pairs)
    elif retrieval.descriptors:
        listed = _most_alike(retrieval, list(known.images), queries, config.references)
    names = {q: tuple(r for r in listed.get(q, ()) if r in known.images) for q in queries}
    if not any(names.values()):
        where = f"{retrieval.pairs}: " if retrieval.pairs else ""
        raise DataError(f"{where}no query, as '{queries[0]}', has a reference in the model")
    similarity = _similarity(retrieval.descriptors, names) if config.mean_initial_pose else {}
    return {q: RankedReferences(found, similarity.get(q)) for q, found in names.items()}


def _most_alike(
    retrieval: Retrieval, references: Sequence[str], queries: Sequence[str], count: int
) -> dict[str, list[str]]:
    """Return the references of each query whose descriptors are most like its own, best first."""
    of_references = hloc.read_descriptors(retrieval.descriptors, references)
    of_queries = hloc.read_descriptors(retrieval.descriptors, queries)
    everywhere, ranked = frozenset(references), {}
    for query, descriptor in zip(queries, of_queries, strict=True):
        among = retrieval.among.get(query, everywhere)
        order = np.argsort(-(of_references @ descriptor), kind="stable")
        ranked[query] = [references[i] for i in order if references[i] in among][:count]
    return ranked


def _similarity(
    descriptors: Sequence[Path], ranked: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[float, ...]]:
    """Return how much the descriptors of a query's references are like its own, by query."""
    names = list(dict.fromkeys([*ranked, *(one for listed in ranked.values() for one in listed)]))
    of = dict(zip(names, hloc.read_descriptors(descriptors, names), strict=True))
    return {q: tuple(float(of[q] @ of[one]) for one in listed) for q, listed in ranked.items()}
