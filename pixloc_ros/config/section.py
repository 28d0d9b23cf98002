"""The base class of all sections of the configuration, and what it says of wrong values."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from pixloc_ros.common.models import PublicModel
from pixloc_ros.errors import ConfigError, PixlocError

_OF_SEVERAL = ("tuple_type", "missing", "too_long")  # what a sequence of numbers may lack


class Section(PublicModel):
    """Base of all sections: frozen, unknown keys are errors, and numbers are finite.

    Every number has a lower and an upper bound (`ge` and `le`), which the node's parameters state;
    a test finds numbers without bounds.

    Raises ConfigError for unknown names (suggesting the nearest) and values out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def refusal(cls, error: ValidationError) -> PixlocError:
        """Return the error, in one line."""
        return ConfigError(complaint(error, cls))


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem in one line: which parameter, its value, and what is expected."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name, known = ".".join(path), set(_names(model))
    if first["type"] == "extra_forbidden" and name in known:
        return f"parameter '{name}' is in a section: pixloc_ros.config.from_flat takes such names"
    if first["type"] == "extra_forbidden":
        return f"unknown parameter '{name}'{suggestion(name, known)}"
    why, value = first["msg"].removeprefix("Value error, "), first["input"]
    if isinstance(value, dict | BaseModel):  # a rule about several settings
        return f"{name}: {why}" if name else why
    of, field = _field(path, model)
    what = str(field.description).partition(". ")[0] if field is not None else ""
    if field is not None and first["type"] in _OF_SEVERAL:
        count = len(get_args(field.annotation))
        return f"parameter '{of}' = {value!r}: expected {count} numbers. {what}"
    if first["type"] == "string_pattern_mismatch":
        return f"parameter '{of}' = {value!r} does not fit. {what}"
    return f"parameter '{name}' = {value!r}: {why}"


def suggestion(name: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one, if any is near."""
    leaves = {key.rsplit(".", 1)[-1]: key for key in known}
    match = difflib.get_close_matches(name, known, n=1) or [
        leaves[leaf] for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, n=1)
    ]
    return f": did you mean '{match[0]}'?" if match else "; `pixloc config` lists all of them"


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _field(path: list[str], model: type[BaseModel]) -> tuple[str, FieldInfo | None]:
    """Return the name and the field that an error is about, without the place in a sequence."""
    for end, part in enumerate(path, 1):
        field = model.model_fields.get(part)
        if field is None:
            break
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return ".".join(path[:end]), field
        model = field.annotation
    return ".".join(path), None
