"""Run a session in a node: events come from callbacks, images are processed in their own thread.

Knows nothing of ROS. The session alone decides what an event means; this module adds the lock, the
thread, the newest image that waits for it, and the wall clock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from pixloc_ros.common.stopwatch import Stopwatch
from pixloc_ros.sensors.events import Event
from pixloc_ros.sensors.image_group import ImageGroup
from pixloc_ros.session import Answer, Session

_POLL_S = 0.1  # how soon a stop is noticed while no image comes


class LiveSession:
    """Passes events to a session at once, and the newest images to its worker thread.

    on_answer: called by the worker with the answer to each group of images.
    prepare: called by the worker before it takes the first one.
    max_waiting: how many groups may wait for the worker; if there are more, the oldest are dropped.
    """

    def __init__(
        self,
        session: Session,
        on_answer: Callable[[Answer], None],
        prepare: Callable[[], None] = lambda: None,
        max_waiting: int = 1,
    ) -> None:
        self._session = session
        self._on_answer = on_answer
        self._prepare = prepare
        self._max_waiting = max_waiting
        self._changed = threading.Condition()  # guards the session and the attributes below
        self._waiting: deque[ImageGroup] = deque()
        self._in_work: ImageGroup | None = None
        self._stopping = threading.Event()
        # A daemon: a frame that never ends must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="pixloc_worker", daemon=True)

    def start(self) -> None:
        """Start processing images."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.5) -> bool:
        """Finish the current images and end the worker; return False if that takes too long."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def push(self, event: Event) -> None:
        """Take one event, quickly."""
        with self._changed:
            self._waiting.extend(self._session.intake.take(event))
            while len(self._waiting) > self._max_waiting:
                self._waiting.popleft()
                self._session.counters.add("image.dropped")
            self._changed.notify_all()

    @contextmanager
    def locked(self) -> Iterator[Session]:
        """Give this thread exclusive access to the session, for something quick."""
        with self._changed:
            yield self._session

    def settled(self) -> bool:
        """Return whether the worker has nothing to do until another event comes."""
        with self._changed:
            if self._in_work is None:
                return not self._waiting
            return self._session.awaits(self._in_work)

    def _run(self) -> None:
        self._prepare()
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting, _POLL_S)
                if not self._waiting or self._stopping.is_set():
                    continue
                self._in_work = self._waiting.popleft()
            self._on_answer(self._answer(self._in_work))
            with self._changed:
                self._in_work = None

    def _answer(self, group: ImageGroup) -> Answer:
        """Process one group: the steps of `Session.push`, with a clock that limits the waiting."""
        watch, config, intake = Stopwatch(), self._session.config, self._session.intake
        watch.timing_ms["queue"] = 1e3 * (time.perf_counter() - group.received_s)
        try:
            self._wait_while(intake.awaits_calibration, group, config.node.calibration_wait_s)
            with watch("decode"):
                images = self._session.decode(group, self._changed)
            with watch("odometry"):
                wait_s = config.priors.odometry_wait_s
                self._wait_while(intake.awaits_odometry, group, wait_s)
            answer = self._session.answer(group, images, self._changed)
        except Exception as error:
            with self._changed:
                answer = self._session.failed(group, error)
        timing_ms = {**watch.timing_ms, **answer.estimate.timing_ms}
        return replace(answer, estimate=replace(answer.estimate, timing_ms=timing_ms))

    def _wait_while(
        self, awaits: Callable[[ImageGroup], bool], group: ImageGroup, timeout_s: float
    ) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not awaits(group) or self.stopping, timeout_s)
