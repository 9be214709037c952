"""Errors a caller can act on. Needs no torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class SpecError(ValueError):
    """A specification that cannot be run as it stands.

    Attributes:
        pointer: JSON pointer to the offending value, relative to the object that was
            checked (``"/params/layers/3/out_channels"``; ``""`` is the object itself).
        message: What is wrong and how to fix it, in one or two sentences.
    """

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message

    def under(self, prefix: str) -> "SpecError":
        """Return the same error with ``prefix`` in front of its pointer."""
        return SpecError(prefix + self.pointer, self.message)


@contextmanager
def under(prefix: str) -> Iterator[None]:
    """Put ``prefix`` in front of the pointer of a SpecError that is raised inside."""
    try:
        yield
    except SpecError as error:
        raise error.under(prefix) from None


class DataError(ValueError):
    """A data set or file that is absent, corrupt, or not in the format its loader reads."""


class CheckpointError(DataError):
    """A checkpoint that cannot be read, or is of another run or version."""


class DivergedError(RuntimeError):
    """Several steps in a row were not finite; the message says what was not, and what to do."""


def error_message(error: Mapping[str, Any]) -> str:
    """Return the message of one of pydantic's errors, without the prefix it adds to ours.

    Args:
        error: An item of ``ValidationError.errors()``.
    """
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
