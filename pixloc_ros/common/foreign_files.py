"""Read files of any origin: within bounds, or refused in one clear line.

Whatever a file makes a parser do (recurse without end, build gigabytes from a kilobyte, raise any
exception), the caller gets a checked value or an error of its own family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pixloc_ros.errors import PixlocError, one_line

Refusal = type[PixlocError]

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
MAX_TEXT_BYTES = 1_000_000_000
MAX_JSON_BYTES = 200_000_000
MAX_YAML_BYTES = 500_000  # parsed at 100 kB a second
MAX_DIGITS = 25  # of an integer; no type that might be meant holds more


@contextmanager
def refusing(
    refusal: Refusal, path: str | Path, remedy: str = "is the file whole?"
) -> Iterator[None]:
    """Convert every error in a block that reads a file to the caller's family of errors.

    Parsers of foreign files may raise anything. The message names the exception's class, because
    our own defects surface here as well.
    """
    try:
        yield
    except PixlocError:
        raise
    except OSError as error:
        raise refusal(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise refusal(f"cannot read {path}: {one_line(error, 300)}; {remedy}") from error
    except Exception as error:
        why = one_line(error, 300)
        raise refusal(f"cannot read {path}: {type(error).__name__}: {why}; {remedy}") from error


def read_text(path: str | Path, refusal: Refusal, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return UTF-8 text, with or without a byte order mark. Raises `refusal`."""
    path = Path(path)
    with refusing(refusal, path):
        if (size := path.stat().st_size) > max_bytes:
            raise refusal(f"cannot read {path}: it has {size} bytes, at most {max_bytes} are read")
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise refusal(f"cannot read {path}: it is not a text file (UTF-8)") from None


def read_json(path: str | Path, refusal: Refusal) -> Any:
    """Return the value in a JSON file. Raises `refusal`."""
    text = read_text(path, refusal, MAX_JSON_BYTES)
    with refusing(refusal, path):
        return parse_json(text)


def parse_json(text: str) -> Any:
    """Parse like json.loads, but refuse integers that no type holds. Raises ValueError."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_yaml(path: str | Path, refusal: Refusal) -> Any:
    """Return the value in a YAML file without aliases, tags and dates. Raises `refusal`."""
    text = read_text(path, refusal, MAX_YAML_BYTES)
    with refusing(refusal, path):
        return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Parse a text like read_yaml. Raises ValueError."""
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def confined(folder: Path, name: str, refusal: Refusal) -> Path:
    """Return the path of a file that another file names, below a folder. Raises `refusal`.

    A name that leads out of the folder could make a map or a model read or write anywhere. Links
    are followed, because folders of images often consist of them.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or "\0" in name:
        raise refusal(f"'{name}' is not the name of a file below {folder}")
    return folder / name


def is_url(location: object) -> bool:
    """Return whether a location is a URL rather than a path."""
    return isinstance(location, str) and _URL.match(location) is not None


def own_file(folder: Path, name: str, refusal: Refusal) -> Path:
    """Return a path like `confined`, of a file that lies in the folder itself. Raises `refusal`.

    In a folder that came as an archive, a link may lead anywhere, and a pipe or a device has no
    end.
    """
    path = confined(folder, name, refusal)
    with refusing(refusal, path):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise refusal(f"{path} is a link that leads out of its folder; copy the file there")
        if path.exists() and not path.is_file():
            raise refusal(f"{path} is not a file")
    return path


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


class _PlainLoader(yaml.SafeLoader):
    """Loads only mappings, lists, strings and numbers, which is all that configurations need."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a kilobyte of aliases may expand to gigabytes
            event = self.peek_event()
            raise yaml.YAMLError(f"aliases as *{event.anchor} are not read, write it out")
        return super().compose_node(parent, index)


def _construct_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MAX_DIGITS:
        raise yaml.YAMLError(f"an integer of {len(node.value)} digits")
    return int(yaml.SafeLoader.construct_yaml_int(loader, node))


_PlainLoader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "float", "seq", "map", "str")
}
_PlainLoader.yaml_constructors["tag:yaml.org,2002:int"] = _construct_integer
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
