"""What all sections of the configuration have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys are errors, and numbers are finite.

    Every number has a lower and an upper bound (`ge` and `le`): the parameters of the node state
    them, and a test finds one that has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
