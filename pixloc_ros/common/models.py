"""Pydantic models that Python users make: a wrong value raises an error of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from pixloc_ros.errors import PixlocError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Refusing(ModelMetaclass):
    """Applies to calls of a class, as users write them, but not to models within models."""

    def __call__(cls, *arguments: Any, **values: Any) -> Any:
        try:
            return super().__call__(*arguments, **values)
        except ValidationError as error:
            raise cls.refusal(error) from None  # type: ignore[attr-defined]


class PublicModel(BaseModel, metaclass=_Refusing):
    """A model whose class, when called with wrong values, raises what `refusal` returns."""

    @classmethod
    def refusal(cls, error: ValidationError) -> PixlocError:
        """Return the error, in one line."""
        return PixlocError(f"{cls.__name__}: {first_problem(error)}")


def first_problem(error: ValidationError) -> str:
    """Return what pydantic complains about first, in one line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(str(part) for part in first['loc'])}: {message}"
