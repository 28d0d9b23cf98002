"""Extend griffe: the comment after a dataclass field is its documentation.

    stamp_ns: int  # of the middle of the exposure

A field is thus described once, where it is defined.
"""

from __future__ import annotations

import ast
from typing import Any

from griffe import Attribute, Docstring, Extension, ObjectNode


class FieldComments(Extension):
    """Documents attributes without a docstring by the comment at the end of their line."""

    def on_attribute_instance(
        self, *, node: ast.AST | ObjectNode, attr: Attribute, **_: Any
    ) -> None:
        """Read the comment from the source."""
        if attr.docstring is None and attr.parent is not None and attr.parent.is_class:
            line = attr.lines_collection[attr.filepath][(attr.endlineno or 1) - 1]
            comment = line.partition("  # ")[2]
            if comment:
                attr.docstring = Docstring(comment, parent=attr)
