"""Options of optimizers that are made in Python, checked by the types of their parameters."""

from collections.abc import Collection
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from torch import dtype, nn

from mlhf.core.errors import error_message
from mlhf.optimizers.params import (
    Bytes,
    Decay,
    Dimension,
    Interval,
    NonNegative,
    Positive,
    Samples,
    SkippedSteps,
)
from mlhf.optimizers.schedules import Fraction

_ZeroOrPositive = Annotated[float, Field(ge=0, le=1e12)]  # 0, or what a configuration may say

_TYPES: dict[str, Any] = {
    "average": Fraction,
    "beta2": Decay,
    "block_size": Dimension,
    "compile": bool,
    "curvature_batch": Samples | None,
    "damping": _ZeroOrPositive,
    "decay": Decay,
    "decrease": Annotated[float, Field(gt=0, le=1)],
    "eps": _ZeroOrPositive,
    "factors_every": Interval,
    "fisher": Literal["sampled", "empirical", "exact"],
    "growth_exponent": Annotated[float, Field(ge=0, le=4)],
    "growth_steps": Positive,
    "increase": Annotated[float, Field(ge=1, le=1e6)],
    "inverse_every": Interval,
    "iterations": Interval,
    "kernel": Literal["auto", "cpp", "triton", "torch"],
    "kl_clip": Positive | None,
    "lr": NonNegative,  # 0 is of use where a schedule starts
    "matrix_eps": Positive,
    "max_dimension": Dimension,
    "max_skipped_steps": SkippedSteps,
    "memory_bytes": Bytes,
    "micro_batch": Samples | None,
    "momentum": Decay,
    "norm_clip": Positive | None,
    "precondition_every": Interval,
    "refresh_every": Interval,
    "rotate": bool,
    "samples": Samples,
    "seed": int,
    "solve_every": Interval,
    "tolerance": NonNegative,
    "update_every": Interval,
    "warm_start": Fraction | None,
    "weight_decay": NonNegative,
}


def check_options(**values: Any) -> None:
    """Check the values of options.

    Raises:
        ValueError: for the first that is out of range or of another type, naming the option,
            the value and what is allowed.
    """
    for name, value in values.items():
        number = value
        if isinstance(value, Real) and not isinstance(value, bool | int | float):  # NumPy's
            number = int(value) if isinstance(value, Integral) else float(value)
        try:
            _adapter(name).validate_python(number, strict=True)
        except ValidationError as error:
            messages = {error_message(e) for e in error.errors(include_url=False)}
            allowed = " or ".join(m.replace("Input should", "it should") for m in sorted(messages))
            raise ValueError(f"{name}={value!r} is not allowed: {allowed}") from None


def known_options() -> Collection[str]:
    """Return the names of the options that some optimizer has."""
    return _TYPES.keys()


def check_model(model: Any) -> None:
    """Check that a model is one, not its parameters, as ``torch.optim`` takes them.

    Raises:
        TypeError: where it is not.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"the optimizer takes the model itself, an nn.Module, not a {type(model).__name__}: "
            "it runs the forward pass in step(x, y)"
        )


def check_autocast(autocast: Any) -> None:
    """Check the dtype of autocast.

    Raises:
        ValueError: where it is neither a floating-point dtype nor None.
    """
    if autocast is not None and not (isinstance(autocast, dtype) and autocast.is_floating_point):
        raise ValueError(
            f"autocast={autocast!r} is not allowed: it should be a dtype such as torch.bfloat16, "
            "or None"
        )


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    kind = _TYPES[name]
    return TypeAdapter(kind, config={"allow_inf_nan": False})
