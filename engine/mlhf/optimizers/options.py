"""Options of optimizers that are made in Python, checked by the types of their parameters."""

from functools import cache
from numbers import Integral, Real
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlhf.core.errors import error_message


def checked(name: str, value: Any, kind: Any) -> Any:
    """Return an option's value.

    Args:
        name: The option.
        value: What was given.
        kind: A type of ``params.py``, such as ``LearningRate``: bounds are stated there.

    Raises:
        ValueError: naming the option, the value and what is allowed.
    """
    if isinstance(value, Real) and not isinstance(value, bool | int | float):  # NumPy's
        value = int(value) if isinstance(value, Integral) else float(value)
    try:
        return _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        messages = {error_message(e) for e in error.errors(include_url=False)}
        allowed = " or ".join(
            sorted(m.replace("Input should be", "it has to be") for m in messages)
        )
        raise ValueError(f"{name}={value!r} is not allowed: {allowed}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config={"allow_inf_nan": False})
