"""Calling autograd nodes by hand from within a backward pass.

A node that is called while autograd runs a backward pass leaves out every gradient which
*that* pass does not need, even if the call has nothing to do with it: a tangent through
``TanhBackward`` would silently be None. This happens in passes with given inputs
(``torch.autograd.grad``); a pass without them needs all gradients.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread."""
    return bool(torch._C._current_graph_task_id() != -1)


def run_nested_backward(function: Callable[[], T]) -> T:
    """Return ``function()``, called within a nested backward pass that needs all gradients."""
    results: list[T] = []
    with torch.enable_grad():
        anchor = torch.zeros((), requires_grad=True)
        end = _CallInBackward.apply(  # type: ignore[no-untyped-call]
            anchor, lambda: results.append(function())
        )
    end.backward()
    return results[0]


class _CallInBackward(torch.autograd.Function):
    """The identity, whose backward calls a function."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, function: Callable[[], None]) -> Tensor:
        ctx.function = function
        return anchor.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None]:
        ctx.function()
        return None, None
