"""Parameters as a stranger sets them, of any type."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from fuzz.damage import FLOATS, INTEGERS, STRINGS
from pixloc_ros import config

SCALARS = st.sampled_from([*FLOATS, *INTEGERS, *STRINGS, True, False])
DEFAULTS = dict(config.flatten(config.Config()))


@st.composite
def parameters(draw: DrawFn) -> dict[str, Any]:
    """A few settings by their dotted names, now and then by one that does not exist."""
    names = st.one_of(*[st.sampled_from(sorted(DEFAULTS))] * 8, st.sampled_from(STRINGS))
    return {name: draw(_values(name)) for name in draw(st.sets(names, min_size=1, max_size=3))}


def _values(name: str) -> SearchStrategy[Any]:
    """Mostly of the type that the setting has."""
    default = DEFAULTS.get(name)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, float):
        near = st.sampled_from([(default or 1.0) * 10.0**k for k in range(-3, 4)])
        return st.one_of(near, near, near, SCALARS)
    if isinstance(default, int):
        near = st.integers(default // 2, 2 * default + 2)
        return st.one_of(near, near, near, SCALARS)
    if isinstance(default, tuple | list):
        return st.lists(SCALARS, min_size=len(default), max_size=len(default))
    return SCALARS
