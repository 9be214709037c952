"""The base of every specification, and the types of values they share. Needs no torch."""

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

PositiveInt = Annotated[int, Field(ge=1, le=2**53, strict=True)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def added_field(default: Any, **options: Any) -> Any:
    """A field that earlier versions do not know, and refuse.

    It is written only where it is not at its default, which must mean what its absence meant: so
    processes of an earlier version can still read what this one writes during an upgrade.
    """
    return Field(default=default, exclude_if=lambda value: bool(value == default), **options)


class Strict(BaseModel):
    """Base of every specification. Unknown fields are errors, so that a typo does not pass.

    Neither does text in place of a number, which pydantic would convert.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        wrong = [
            InitErrorDetails(
                type=PydanticCustomError("number_type", "must be a number, not text"),
                loc=(name,),
                input=values[name],
            )
            for name in _numeric(cls)
            if isinstance(values.get(name), str)
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return values


@cache
def _numeric(model: type[BaseModel]) -> tuple[str, ...]:
    """The fields that hold a number, or nothing."""
    fields = model.model_fields.items()
    return tuple(n for n, field in fields if _kinds(field.annotation) <= {int, float, NoneType})


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows, those of a union apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation}


class Component(Strict):
    """A registered name and its parameters, which the registry checks."""

    name: str = Field(min_length=1, max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)


class DatasetSource(Component):
    """A data set family, its parameters, and the folder its files are in.

    ``root`` is set by whoever runs the engine, never by a user of the service; so is ``sha256``, of
    the content, where it is known. A run's record has it apart from its configuration.
    """

    root: str | None = None
    sha256: str | None = Field(default=None, exclude=True)
