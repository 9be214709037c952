"""What the catalogue shows."""

from typing import Any

from pydantic import BaseModel, Field


class Entry(BaseModel):
    """Something a job can name."""

    name: str
    description: str
    params_schema: dict[str, Any] = Field(
        description="JSON Schema of the params: types, defaults, bounds, descriptions."
    )


class EntryList(BaseModel):
    """All entries of one kind."""

    data: list[Entry]
