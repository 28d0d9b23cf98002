"""Files behind a URL, by fsspec: read within bounds of size and of time, or refused in one line.

Whoever answers at the other end may be slow, break off, lie or redirect.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

from pixloc_ros.common.foreign_files import refusing
from pixloc_ros.errors import ConfigError, MapError, one_line

PROTOCOLS = ("https", "http", "s3", "gs", "file")
CONNECT_S = 5.0  # until a server answers at all
SILENCE_S = 10.0  # between two pieces
MIN_RATE_BYTES_S = 20_000  # a file may take as long as this rate would; a slower one is given up
PIECE_BYTES = 1 << 18
_SECRET = re.compile(r"//[^/@]*@")


class NotThere(MapError):
    """The server answers, but has no such file."""


class Interrupted(MapError):
    """The server did not answer, or not to the end: another attempt may succeed."""


class Transport:
    """Reads files below a URL. Not for several threads at once.

    Raises ConfigError for protocols other than those of PROTOCOLS, and where fsspec is missing.
    """

    def __init__(self, url: str) -> None:
        protocol = urlsplit(url).scheme.lower()
        if protocol not in PROTOCOLS or "::" in url:
            raise ConfigError(f"{url}: a map's URL begins with {', '.join(PROTOCOLS)}, not nested")
        self._url = url.rstrip("/")
        self._protocol = protocol
        self.location = _SECRET.sub("//", self._url)  # fit for messages
        self.bytes_read = 0
        _require(protocol)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which makes connections of its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_files"}

    def pieces(self, name: str, max_bytes: int, exact: bool = False) -> Iterator[bytes]:
        """Yield a file piece by piece.

        name: below the URL; each part of it is quoted. max_bytes: a larger one is refused before
        it is read where the server tells its size, and in the middle where it does not. exact: as
        is a smaller one, at its end. Raises MapError: Interrupted where another attempt may
        succeed, NotThere where the server has no such file.
        """
        where = f"{self.location}/{name}"
        with refusing(Interrupted, where, "is the server all right?"), _in_time(where):
            file = self._open(name, where)
            try:
                _check_size(file, where, max_bytes, exact)
                yield from self._bounded(file, where, max_bytes, exact)
            finally:
                file.close()

    def _open(self, name: str, where: str) -> Any:
        path = f"{self._url}/{quote(name)}" if self._is_http else f"{self._url}/{name}"
        # A stream of one request; redirects could lead to files and services of this machine.
        options = {"block_size": 0, "size": 1, "allow_redirects": False} if self._is_http else {}
        try:
            file = self._files.open(path, "rb", **options)
        except FileNotFoundError:
            raise NotThere(f"{where}: not there") from None
        except ssl.SSLCertVerificationError as error:
            why = f"its certificate is not trusted ({one_line(error, 200)})"
            raise MapError(f"{where}: {why}; name the file of its CA in SSL_CERT_FILE") from None
        if self._is_http and file.r.status != 200:
            status, target = file.r.status, file.r.headers.get("Location", "nothing")
            file.close()
            raise MapError(f"{where}: answered with {status} ({target}); give the final address")
        return file

    def _bounded(self, file: Any, where: str, max_bytes: int, exact: bool) -> Iterator[bytes]:
        """The pieces of an open file."""
        begun_s, read = time.monotonic(), 0
        while piece := file.read(PIECE_BYTES):
            read += len(piece)
            self.bytes_read += len(piece)
            if read > max_bytes:
                raise MapError(f"{where}: has more than the {max_bytes} bytes expected")
            if time.monotonic() - begun_s > SILENCE_S + read / MIN_RATE_BYTES_S:
                raise Interrupted(
                    f"{where}: too slow, {read} bytes in {time.monotonic() - begun_s:.0f} s"
                )
            yield piece
        if exact and read != max_bytes:
            raise Interrupted(f"{where}: ended after {read} of {max_bytes} bytes")

    @property
    def _is_http(self) -> bool:
        return self._protocol in ("http", "https")

    @cached_property
    def _files(self) -> Any:
        """The file system, with connections of its own."""
        import fsspec

        if not self._is_http:
            return fsspec.filesystem(self._protocol, skip_instance_cache=True)
        import aiohttp

        timeout = aiohttp.ClientTimeout(None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        client = {
            "timeout": timeout,
            "auto_decompress": False,  # a kilobyte may unpack to gigabytes
            "headers": {"Accept-Encoding": "identity"},
        }
        return fsspec.filesystem(self._protocol, client_kwargs=client, skip_instance_cache=True)


@contextmanager
def _in_time(where: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise Interrupted(f"{where}: no answer, or nothing more for {SILENCE_S:g} s") from None


def _check_size(file: Any, where: str, max_bytes: int, exact: bool) -> None:
    """Refuse a file before it is read, by the size that the server tells of it, if it does."""
    answer = getattr(file, "r", None)
    told = getattr(file, "size", None) if answer is None else answer.headers.get("Content-Length")
    if told is None:
        return
    if int(told) > max_bytes or (exact and int(told) != max_bytes):
        expected = "" if exact else "at most "
        raise MapError(f"{where}: has {told} bytes, expected {expected}{max_bytes}")


def _require(protocol: str) -> None:
    """Raise ConfigError where a library is missing."""
    libraries = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
    for library in ("fsspec", libraries.get(protocol, "fsspec")):
        try:
            __import__(library)
        except ImportError:
            remedy = "'pixloc_ros[remote]'" if library in ("fsspec", "aiohttp") else library
            raise ConfigError(
                f"maps behind {protocol}:// need the library {library}: pip install {remedy}"
            ) from None
