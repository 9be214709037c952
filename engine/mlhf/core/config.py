"""The base of every specification, and the types of values they share. Needs no torch."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1, le=2**53, strict=True)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of every specification. Unknown fields are errors, so that a typo does not pass."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Component(Strict):
    """A registered name and its parameters, which the registry checks."""

    name: str = Field(min_length=1, max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)


class DatasetSource(Component):
    """A data set family, its parameters, and the folder its files are in.

    ``root`` is set by whoever runs the engine, never by a user of the service.
    """

    root: str | None = None
