"""Options that belong together, as one parameter of a command: a dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every field of those parameters that are dataclasses.

    The fields are annotated as parameters of a command are, and keep their order. typer is shown
    the options one by one; the command is called with the dataclasses.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        group = groups.get(name)
        own = [parameter] if group is None else _fields_as_parameters(group)
        parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]

    @functools.wraps(command)
    def called_by_typer(**options: Any) -> None:
        for name, group in groups.items():
            options[name] = group(
                **{field.name: options.pop(field.name) for field in fields(group)}
            )
        command(**options)

    called_by_typer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called_by_typer.__annotations__ = {each.name: each.annotation for each in parameters}
    return called_by_typer


def _fields_as_parameters(group: Any) -> list[inspect.Parameter]:
    annotations = get_type_hints(group, include_extras=True)
    parameters = inspect.signature(group).parameters.values()
    return [each.replace(annotation=annotations[each.name]) for each in parameters]
