"""A web server for maps that can be slow, break off, lie, redirect and go away."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class MapServer:
    """Serves a folder. Faults are by parts of file names, and can be set while it runs."""

    folder: Path
    url: str = ""
    cut: set[str] = field(default_factory=set)  # break off amid the file
    cut_next: Counter[str] = field(default_factory=Counter)  # as many times, then no more
    lie: set[str] = field(default_factory=set)  # the right size, but one byte
    endless: set[str] = field(default_factory=set)  # more than is said, and no size told
    redirect: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)  # not answered until they are released
    down: bool = False  # every connection is closed at once
    asked: list[str] = field(default_factory=list)  # paths, in order
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Answer what was held."""
        self.held.clear()
        self.released.set()


class _Handler(SimpleHTTPRequestHandler):
    server: _Server

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(arguments[-1].told.folder))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        told = self.server.told
        told.asked.append(self.path)
        self.close_connection = True
        if told.down:
            return
        if self._is(told.held):
            told.released.wait(60.0)
        if target := next((to for part, to in told.redirect.items() if part in self.path), ""):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
        elif self._is(told.cut | told.lie | told.endless) or self._is_cut_this_time():
            self._answer_badly(Path(self.translate_path(self.path)))
        else:
            super().do_GET()

    def _answer_badly(self, path: Path) -> None:
        if not path.is_file():
            return self.send_error(404)
        told, content = self.server.told, path.read_bytes()
        self.send_response(200)
        if not self._is(told.endless):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not self._is(told.lie | told.endless):
            content = content[: len(content) // 2]
        if self._is(told.lie):
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(2 * content if self._is(told.endless) else content)

    def _is_cut_this_time(self) -> bool:
        told = self.server.told
        part = next(
            (part for part, count in told.cut_next.items() if part in self.path and count), ""
        )
        told.cut_next[part] -= bool(part)
        return bool(part)

    def _is(self, parts: set[str]) -> bool:
        return any(part in self.path for part in parts)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, told: MapServer) -> None:
        self.told = told
        super().__init__(("127.0.0.1", 0), _Handler)


@contextmanager
def serving(folder: Path) -> Iterator[MapServer]:
    """A server in a thread; `MapServer.url` is the folder's."""
    told = MapServer(folder)
    server = _Server(told)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.release()
        server.shutdown()
        server.server_close()
        thread.join()
