"""Features extracted from images by this process, by several of this machine, or by a Ray cluster.

Each image is worked on by one thread: sums in another order differ in the last bits, and a map
must not depend on how many workers built it.
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from types import ModuleType
from typing import Any

import torch

from pixloc_ros.common.process import PASSIVE_WAITING
from pixloc_ros.errors import MapError
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.maps.build.feature_extraction import ImageTask, extract_features
from pixloc_ros.maps.feature_store import Arrays

AHEAD = 2  # tasks per worker that are under way
RETRIES = 5  # of a task whose Ray worker died


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """What extracts features: this process, several of this machine, or a Ray cluster."""

    processes: int = 1
    ray_address: str = ""  # of a running cluster, "auto" for that of this machine

    def extract(self, tasks: Sequence[ImageTask], extractor: FeatureExtractor) -> Iterator[Arrays]:
        """Yield what `extract_features` returns for each task, in their order.

        Raises MapError where a process was killed, and where no Ray cluster answers.
        """
        network = _NetworkToOpen.of(extractor)
        if not tasks:
            return iter(())
        if self.ray_address:
            return _with_ray(tasks, network, self.ray_address)
        if self.processes > 1:
            return _with_processes(tasks, network, self.processes)
        return (_extract_alone(task.read(), task, extractor) for task in tasks)


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
    return _extract_alone(content, task, _open(network))


def _extract_alone(content: bytes, task: ImageTask, extractor: FeatureExtractor) -> Arrays:
    with _one_thread():
        return extract_features(content, task, extractor)


@contextmanager
def _one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _with_processes(
    tasks: Sequence[ImageTask], network: _NetworkToOpen, count: int
) -> Iterator[Arrays]:
    # Fresh processes: forking one whose libraries already run threads can hang.
    workers = min(count, len(tasks))
    with ProcessPoolExecutor(workers, get_context("spawn"), _leave_interrupts) as pool:
        futures = (pool.submit(_extract_as_worker, task.read(), task, network) for task in tasks)
        try:
            yield from _in_order(futures, lambda future: future.result(), AHEAD * count)
        except BrokenProcessPool:
            raise MapError(
                "a worker process was killed, perhaps for lack of memory; start again with fewer "
                "--workers: what is done is kept"
            ) from None


def _leave_interrupts() -> None:
    """Let the process that started this one answer Ctrl-C, for all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _with_ray(
    tasks: Sequence[ImageTask], network: _NetworkToOpen, address: str
) -> Iterator[Arrays]:
    ray = _connect(address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_extract_as_worker)
        under_way = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        references = (remote.remote(task.read(), task, network) for task in tasks)
        yield from _in_order(references, ray.get, under_way)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        why = str(error).strip().partition("\n")[0]
        raise MapError(
            f"Ray lost a task for good ({why}); start again: what is done is kept"
        ) from None
    finally:
        ray.shutdown()


def _connect(address: str) -> ModuleType:
    try:
        import ray
    except ImportError:
        raise MapError('--ray needs Ray: pip install "pixloc_ros[ray]"') from None
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": PASSIVE_WAITING},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise MapError(
            f"no Ray cluster at '{address}' ({why}); start one with `ray start --head`"
        ) from None
    return ray


def _in_order(
    started: Iterable[Any], result: Callable[[Any], Arrays], under_way: int
) -> Iterator[Arrays]:
    """Results in the order of starting, so many under way at once: `started` starts them."""
    pending: deque[Any] = deque()
    for handle in started:
        pending.append(handle)
        if len(pending) >= under_way:
            yield result(pending.popleft())
    while pending:
        yield result(pending.popleft())
