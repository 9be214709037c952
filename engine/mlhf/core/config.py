"""The base of every specification, and the kinds of values they share. Needs no torch."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1, le=2**53, strict=True)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of every specification: unknown fields are errors, not typos that pass."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Component(Strict):
    """A registered name and its parameters; which are allowed, the registry knows."""

    name: str = Field(min_length=1, max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)


class DatasetSource(Component):
    """A data set family, its parameters, and the folder its files lie in.

    ``root`` is set by whoever runs the engine, never by a user of the service.
    """

    root: str | None = None
