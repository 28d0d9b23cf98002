"""Message classes and times. Free of torch, so that a program that decodes nothing starts fast."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from builtin_interfaces.msg import Time

_NS_PER_S = 1_000_000_000


def message_class(kind: str) -> Any:
    """Return the class of `package/msg/Name`. Raises ImportError if it is not installed."""
    package, _, name = kind.split("/")
    return getattr(import_module(f"{package}.msg"), name)


def time_message(stamp_ns: int) -> Time:
    """Return a stamp in nanoseconds as a Time message."""
    seconds, nanoseconds = divmod(stamp_ns, _NS_PER_S)
    return Time(sec=seconds, nanosec=nanoseconds)
