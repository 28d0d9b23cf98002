"""Apply a function to many arguments: in this process, in several local ones, or on Ray.

Results come in the order of the arguments, however long each takes.
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from types import ModuleType
from typing import Any, TypeVar

from pixloc_ros.common.process import PASSIVE_WAITING
from pixloc_ros.errors import ConfigError, PixlocError

Result = TypeVar("Result")

AHEAD = 2  # arguments in progress per worker
RETRIES = 5  # of an argument whose Ray worker died


class LostWorker(PixlocError):
    """Raised if a process or a machine ended before its work was done."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Which processes do the work."""

    processes: int = 1
    ray_address: str = ""  # of a running cluster; "auto": the one on this machine

    @property
    def alone(self) -> bool:
        """Whether this process does the work itself."""
        return self.processes <= 1 and not self.ray_address

    def map(
        self, function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """Call a module-level function with each of the arguments, which are created on demand.

        Raises LostWorker if a process was killed or Ray lost a task for good, and ConfigError if no
        Ray cluster answers.
        """
        if self.alone:
            return (function(*each) for each in arguments)
        if self.ray_address:
            return _with_ray(function, arguments, self.ray_address)
        return _with_processes(function, arguments, self.processes)


def _with_processes(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], count: int
) -> Iterator[Result]:
    # Fresh processes: forking one whose libraries already run threads can hang.
    with ProcessPoolExecutor(count, get_context("spawn"), _ignore_interrupts) as pool:
        futures = (pool.submit(function, *each) for each in arguments)
        try:
            yield from _in_order(futures, lambda future: future.result(), AHEAD * count)
        except BrokenProcessPool:
            raise LostWorker(
                "a worker process was killed, perhaps for lack of memory; start again with fewer "
                "--workers: what is done is kept"
            ) from None


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C here: the process that started this one answers it for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _with_ray(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], address: str
) -> Iterator[Result]:
    ray = _connect(address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        under_way = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        references = (remote.remote(*each) for each in arguments)
        yield from _in_order(references, ray.get, under_way)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        why = str(error).strip().partition("\n")[0]
        raise LostWorker(
            f"Ray lost a task for good ({why}); start again: what is done is kept"
        ) from None
    finally:
        ray.shutdown()


def _connect(address: str) -> ModuleType:
    try:
        import ray
    except ImportError:
        raise ConfigError('--ray needs Ray: pip install "pixloc_ros[ray]"') from None
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": PASSIVE_WAITING},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"no Ray cluster at '{address}' ({why}); start one with `ray start --head`"
        ) from None
    return ray


def _in_order(
    started: Iterable[Any], result: Callable[[Any], Result], under_way: int
) -> Iterator[Result]:
    """Yield results in the order of `started`, with `under_way` tasks running at once."""
    pending: deque[Any] = deque()
    for handle in started:
        pending.append(handle)
        if len(pending) >= under_way:
            yield result(pending.popleft())
    while pending:
        yield result(pending.popleft())
