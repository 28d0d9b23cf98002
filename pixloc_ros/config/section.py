"""The base class of all sections of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys are errors, and numbers are finite.

    Every number has a lower and an upper bound (`ge` and `le`), which the node's parameters state;
    a test finds numbers without bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
