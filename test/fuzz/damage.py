"""Strategies of hypothesis that damage samples: bytes, text, JSON values and messages."""

from __future__ import annotations

import copy
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-320, 1e-160, -1e-9, 1e9, 1e17, 1e160, -1e160, 1e308, -1e308,
    math.inf, -math.inf, math.nan,
)  # fmt: skip
INTEGERS = (
    0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1,
    2**64 - 1, -1, -2, -(2**31), -(2**63),
)  # fmt: skip
STRINGS = (
    "", " ", "/", "..", "../../etc/passwd", "/etc/passwd", "map", "\x1b[2J", "a\nb", "\0", "ü",
    "\u202e", "nan", "1e400", "%s%n", "x" * 300, "x" * 100_000,
)  # fmt: skip
WORDS = (
    "", "0", "-1", "1", "nan", "inf", "-inf", "1e400", "1e308", "-1e308", "1e-320", "9" * 30,
    "9" * 5000, "99999999999", "2147483648", "0x10", "1_0", "None", "true", "\x1b[2J", "\0", "ü",
    "\u2028", "..", "/etc/passwd", "-", "#", ",", ":", "{", "}", "[", "]", "'", '"', "&a", "*a",
    "!!python/name:os.system", "<<", "- ", "? ", "|", "x" * 10_000,
)  # fmt: skip
JSON_VALUES = (
    None, True, False, [], {}, [[]], [None], {"a": 1}, "", "x", "\x1b[2J", "../x", "/etc/passwd",
    "\ud800", *FLOATS, *INTEGERS, 10**30, 10**400, [1] * 16, ["x"] * 3, [[1.0] * 4] * 4,
    [math.nan] * 16, [1e308] * 16, [0] * 12,
)  # fmt: skip
PACKED = ("<B", "<H", "<I", "<Q", ">H", ">I", ">Q", "<i", "<q", "<f", "<d", ">d")

places = st.one_of(st.integers(0, 160), st.integers(0, 2**24))


def _numbers(layout: str) -> SearchStrategy[bytes]:
    if layout[1] in "fd":
        return st.sampled_from(FLOATS).map(lambda value: _packed(layout, value))
    bits = 8 * struct.calcsize(layout)
    return st.sampled_from(INTEGERS).map(
        lambda v: (v % 2**bits).to_bytes(bits // 8, _order(layout))
    )


def _packed(layout: str, value: float) -> bytes:
    try:
        return struct.pack(layout, value)
    except OverflowError:
        return struct.pack(layout, math.copysign(math.inf, value))


def _order(layout: str) -> Any:
    return "little" if layout[0] == "<" else "big"


_overwritten = st.one_of(st.binary(min_size=1, max_size=4), *map(_numbers, PACKED))
_edits = st.one_of(
    st.tuples(st.just("set"), places, _overwritten),
    st.tuples(st.just("set"), places, _overwritten),
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("cut"), places, st.just(0)),
    st.tuples(st.just("drop"), places, st.integers(1, 64)),
    st.tuples(st.just("repeat"), places, st.integers(1, 400)),
)


def damaged_bytes(samples: Sequence[bytes]) -> SearchStrategy[bytes]:
    """One of the samples with a few edits, more of them where headers are."""
    return st.builds(_edited, st.sampled_from(samples), st.lists(_edits, min_size=1, max_size=5))


def _edited(content: bytes, edits: Sequence[tuple[str, int, Any]]) -> bytes:
    result = bytearray(content)
    for kind, place, value in edits:
        at = place % (len(result) + 1)
        if kind == "set":
            result[at : at + len(value)] = value
        elif kind == "insert":
            result[at:at] = value
        elif kind == "cut":
            del result[at:]
        elif kind == "drop":
            del result[at : at + value]
        else:
            result[at:at] = result[at : at + value] * 3
    return bytes(result)


def damaged_text(samples: Sequence[str]) -> SearchStrategy[bytes]:
    """One of the samples with other words and lines; sometimes with bytes that are no text."""
    edits = st.tuples(
        st.sampled_from(("word", "word", "word", "drop", "line", "repeat", "insert")),
        places,
        st.sampled_from(WORDS),
    )
    texts = st.builds(_reworded, st.sampled_from(samples), st.lists(edits, min_size=1, max_size=4))
    encoded = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    raw = damaged_bytes([sample.encode() for sample in samples])
    return st.one_of(encoded, encoded, encoded, raw)


def _reworded(text: str, edits: Sequence[tuple[str, int, str]]) -> str:
    for kind, place, word in edits:
        parts = re.split(r"([\s,:\[\]{}]+)" if kind != "line" else r"(\n)", text)
        at = place % len(parts)
        if kind in ("word", "line"):
            parts[at] = word
        elif kind == "drop":
            parts[at] = ""
        elif kind == "insert":
            parts[at] += word
        else:
            parts[at] *= 50
        text = "".join(parts)
    return text


def damaged_json(samples: Sequence[Any]) -> SearchStrategy[bytes]:
    """One of the samples with values that do not belong there; now and then with other text."""
    return st.one_of(
        _values(samples),
        _values(samples),
        damaged_text([json.dumps(sample) for sample in samples]),
        st.sampled_from([b"[" * 100_000, b'{"a":' * 5000, b"1" * 5000, b"1e999", b"null", b'"x"']),
    )


@st.composite
def _values(draw: DrawFn, samples: Sequence[Any]) -> bytes:
    value = copy.deepcopy(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 3))):
        holders = list(_holders(value))
        if not holders:
            break
        holder, key = draw(st.sampled_from(holders))
        match draw(st.sampled_from(("replace", "replace", "replace", "drop", "repeat"))):
            case "replace":
                holder[key] = copy.deepcopy(draw(st.sampled_from(JSON_VALUES)))
            case "drop":
                del holder[key]
            case "repeat" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case "repeat":
                holder[f"{key}x"] = holder[key]
    return json.dumps(value).encode()


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as the list or mapping that holds it and its index or key."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(items):
        yield value, key
        if isinstance(child, dict | list):
            yield from _holders(child)


@st.composite
def hostile_messages(draw: DrawFn, samples: Sequence[Any], most: int = 4) -> Any:
    """A message of a sample's type with some fields that nobody would send in good faith."""
    message = copy.deepcopy(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, most))):
        owner, name = draw(st.sampled_from(list(_fields(message))))
        object.__setattr__(owner, name, draw(_like(getattr(owner, name))))
    return message


def _fields(message: Any) -> Iterator[tuple[Any, str]]:
    for field in fields(message):
        value = getattr(message, field.name)
        if field.name == "__msgtype__":
            continue
        if is_dataclass(value):
            yield from _fields(value)
            continue
        yield message, field.name
        if isinstance(value, list):
            for each in value:
                if is_dataclass(each):
                    yield from _fields(each)


def _like(value: Any) -> SearchStrategy[Any]:
    """Values of the same type as a field's."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, str):
        return st.sampled_from(STRINGS)
    if isinstance(value, int | np.integer):
        return st.sampled_from(INTEGERS)
    if isinstance(value, float | np.floating):
        return st.one_of(st.sampled_from(FLOATS), st.floats())
    if isinstance(value, np.ndarray):
        return _arrays(value)
    if isinstance(value, list):
        return st.sampled_from([[], value, value * 3])
    raise TypeError(f"no hostile values for {type(value)}")


@st.composite
def _arrays(draw: DrawFn, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind != "f":
        content = draw(damaged_bytes([value.tobytes()]))
        return np.frombuffer(
            content[: len(content) // value.itemsize * value.itemsize], value.dtype
        )
    result = value.copy()
    match draw(st.sampled_from(("one", "one", "all", "length"))):
        case "one" if len(result):
            result[draw(st.integers(0, len(result) - 1))] = draw(st.sampled_from(FLOATS))
        case "all":
            result[:] = draw(st.sampled_from(FLOATS))
        case _:  # arrays of a fixed length are refused where they are written
            length = draw(st.sampled_from((0, 1, 4, 5, 8, 12, 14, 1000)))
            result = np.full(length, draw(st.sampled_from(FLOATS)))
    return result


Reader = Callable[..., object]
