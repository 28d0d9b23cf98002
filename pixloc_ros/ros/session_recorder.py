"""Record accepted frames for map updates, in a thread of its own. Knows nothing of ROS.

Localization never waits for the recorder: frames that come while it is behind are dropped and
counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue

from pixloc_ros.errors import one_line
from pixloc_ros.maps.files.session_folder import SessionHeader, SessionStore
from pixloc_ros.replay.session_recording import FrameChooser, RecordedFrame
from pixloc_ros.session import Answer

MAX_WAITING = 4  # frames, with their images

Count = Callable[[str, str], None]


class SessionRecorder:
    """Writes frames at some distance from each other to a session of a store, until it is closed.

    count: called with the name of each occurrence, and with a line if it went wrong:
    session.recorded, session.dropped, session.removed, session.failed.
    """

    def __init__(
        self, store: SessionStore, header: SessionHeader, spacing_m: float, count: Count
    ) -> None:
        self._store = store
        self._session = store.new_session(header)
        self._chooser = FrameChooser(spacing_m)
        self._count = count
        self._waiting: Queue[RecordedFrame | None] = Queue(MAX_WAITING)  # None wakes the thread
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pixloc_recorder", daemon=True)
        self._thread.start()

    def offer(self, answer: Answer) -> None:
        """Consider the answer to a frame for recording; returns at once."""
        chosen = self._chooser.choose(answer)
        if chosen is None:
            return
        try:
            self._waiting.put_nowait(chosen)
        except Full:
            self._count("session.dropped", "")
        else:
            self._chooser.took(chosen)

    def close(self, timeout_s: float = 0.2) -> None:
        """Write the waiting frames if that takes at most `timeout_s`, and stop."""
        self._closing.set()
        with suppress(Full):
            self._waiting.put_nowait(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not (self._closing.is_set() and self._waiting.empty()):
            chosen = self._waiting.get()
            if chosen is not None:
                self._write(chosen)

    def _write(self, chosen: RecordedFrame) -> None:
        try:
            image = chosen.image()
            removed = self._store.write(self._session, chosen.entry(image), image)
        except Exception as error:  # such as a full disk: localization must go on
            self._count("session.failed", one_line(error))
            return
        self._count("session.recorded", "")
        for _ in range(removed):
            self._count("session.removed", "")
