"""Features extracted from images by this process, by several of this machine, or by a Ray cluster.

Each image is worked on by one thread: sums in another order differ in the last bits, and a map
must not depend on how many workers built it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pixloc_ros.common.parallel import Workers
from pixloc_ros.common.threads import one_thread
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps.build.feature_extraction import ImageTask, extract_features
from pixloc_ros.maps.feature_store import Arrays


def extract_all(
    tasks: Sequence[ImageTask], extractor: FeatureExtractor, workers: Workers
) -> Iterator[Arrays]:
    """Yield what `extract_features` returns for each task, in their order.

    Raises what `Workers.map` raises, and MapError where a worker has other weights.
    """
    if workers.alone:
        return (_extract(task.read(), task, extractor) for task in tasks)
    network = _NetworkToOpen.of(extractor)
    return workers.map(_extract_as_worker, ((task.read(), task, network) for task in tasks))


@dataclass(frozen=True, slots=True)
class _NetworkToOpen:
    """What another process needs to open the same network."""

    weights_name: str
    sha256: str
    device: str
    max_side_px: int

    @classmethod
    def of(cls, extractor: FeatureExtractor) -> _NetworkToOpen:
        return cls(
            weights_name=extractor.weights_name,
            sha256=extractor.sha256,
            device=str(extractor.device),
            max_side_px=extractor.max_side_px,
        )


@lru_cache(maxsize=1)
def _open(network: _NetworkToOpen) -> FeatureExtractor:
    extractor = FeatureExtractor(network.weights_name, network.device, network.max_side_px)
    if extractor.sha256 != network.sha256:
        raise MapError(
            f"weights '{network.weights_name}' of a worker are others "
            f"({extractor.sha256[:12]}, not {network.sha256[:12]}); install the same everywhere"
        )
    return extractor


def _extract_as_worker(content: bytes, task: ImageTask, network: _NetworkToOpen) -> Arrays:
    return _extract(content, task, _open(network))


def _extract(content: bytes, task: ImageTask, extractor: FeatureExtractor) -> Arrays:
    with one_thread():
        return extract_features(content, task, extractor)
