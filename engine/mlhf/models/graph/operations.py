"""From an operation's name in a graph to the callable of torch that it is."""

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.models import roi_align
from mlhf.models.graph.table import OPERATIONS, PART, ZEROED

_HOMES: dict[str, Any] = {
    "torch": torch,
    "functional": F,
    "tensor": Tensor,
    "linalg": torch.linalg,
    "fft": torch.fft,
    "mlhf": roi_align,
}


@cache
def callable_of(operation: str) -> Callable[..., Any] | None:
    """Return what an operation calls; None where this version of torch has no such thing."""
    if operation not in OPERATIONS:
        return None
    if operation == PART:
        return operator.getitem
    home, _, name = ZEROED.get(operation, operation).partition(".")
    if home == "attribute":
        return lambda tensor: getattr(tensor, name)
    found: Callable[..., Any] | None = getattr(_HOMES[home], name, None)
    return found


@cache
def operations_by_callable() -> dict[Any, str]:
    """Return the names of all operations by what ``__torch_function__`` is given for them."""
    found: dict[Any, str] = {}
    for operation in sorted(OPERATIONS - {PART}):
        home, _, name = operation.partition(".")
        if home == "attribute":
            found[getattr(Tensor, name).__get__] = operation
        elif hasattr(_HOMES[home], name):
            found.setdefault(getattr(_HOMES[home], name), operation)
    return found
