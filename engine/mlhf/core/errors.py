"""Errors a caller can act on. Needs no torch."""

from collections.abc import Mapping
from typing import Any


class SpecError(ValueError):
    """A specification that cannot be run as it stands.

    Attributes:
        pointer: JSON pointer to the offending value, relative to the object that was
            checked (``"/params/layers/3/out_channels"``; ``""`` is the object itself).
        message: What is wrong and how to mend it, in one or two sentences.
    """

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message

    def under(self, prefix: str) -> "SpecError":
        """Return the same error with ``prefix`` in front of its pointer."""
        return SpecError(prefix + self.pointer, self.message)


class DataError(ValueError):
    """A data set that is absent, corrupt or not of the form its loader reads."""


def said(error: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors says, without what it puts before a check of ours."""
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
