"""Running autograd nodes by hand from within a backward pass.

A node that is called while autograd runs a backward pass leaves out every gradient that
*that* pass does not need, even when the call has nothing to do with it: a tangent through
``TanhBackward`` would silently be None. This is so for passes that were told their inputs
(``torch.autograd.grad``); a pass without them needs everything.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread."""
    return bool(torch._C._current_graph_task_id() != -1)


def run_nested_backward(work: Callable[[], T]) -> T:
    """Return ``work()``, called in a nested backward pass of its own that needs everything."""
    results: list[T] = []
    with torch.enable_grad():
        anchor = torch.zeros((), requires_grad=True)
        end = _Hook.apply(anchor, lambda: results.append(work()))  # type: ignore[no-untyped-call]
    end.backward()
    return results[0]


class _Hook(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, work: Callable[[], None]) -> Tensor:
        ctx.work = work
        return anchor.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None]:
        ctx.work()
        return None, None
