"""Nodes that cut, join, reorder or spread, and what attention has between them.

Against forward-mode differentiation.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from mlhf.curvature.linearize import Linearization, topological
from mlhf.curvature.view_ops import VIEW_RULES

A = torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4).sin()
B = torch.arange(40.0, dtype=torch.float64).reshape(2, 4, 5).cos()


_BETWEEN = ("BmmBackward0", "MulBackward1")


def _cut(w: Tensor) -> Tensor:
    first, _, third = (w * w).split(1, dim=-2)  # the second goes nowhere
    return first * third


def _cut_by_chunks(w: Tensor) -> Tensor:
    a, b, c = torch.unsafe_chunk(w * w, 3, dim=1)
    return a * b - c


def _copied(w: Tensor) -> Tensor:
    return w.transpose(0, 2).clone(memory_format=torch.contiguous_format)


class _Sines(nn.Module):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.sin() for t in inputs)


def _watched(*inputs: Tensor) -> tuple[Tensor, ...]:
    module = _Sines()
    module.register_full_backward_hook(lambda *_: None)
    found: tuple[Tensor, ...] = module(*inputs)
    return found


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SplitBackward0": lambda w, v: _cut(w),
    "UnsafeSplitBackward0": lambda w, v: _cut_by_chunks(w),
    "UnbindBackward0": lambda w, v: w.unbind(-1)[1] * w.unbind(-1)[2],
    "UnbindBackward0 of one": lambda w, v: w[:1].unbind(0)[0] * 2,
    "TransposeBackward0": lambda w, v: w.transpose(-2, -1).sin() * w.sum(1, keepdim=True).mT,
    "PermuteBackward0": lambda w, v: w.permute(-1, 0, 1).cumsum(0),
    "ExpandBackward0": lambda w, v: w[:, :1].expand(2, 3, 4) * w,
    "CloneBackward0": lambda w, v: _copied(w).view(4, 6).sin(),
    "MulBackward1": lambda w, v: torch.ops.aten.mul.Scalar(w.sin(), 0.3),
    "StackBackward0": lambda w, v: torch.stack([A, w, w.sin(), A], dim=-1).prod(-1),
    "BmmBackward0": lambda w, v: torch.bmm(w, v),
    "BmmBackward0 on the left": lambda w, v: torch.bmm(w, B),
    "BmmBackward0 on the right": lambda w, v: torch.bmm(A, v),
    "BackwardHookFunctionBackward": lambda w, v: torch.bmm(*_watched(w, v, A)[:2]),
    "BackwardHookFunctionBackward of one": lambda w, v: _watched(w)[0],
}


@pytest.mark.parametrize("name", CASES)
def test_a_tangent_is_forward_modes(name: str) -> None:
    function, generator = CASES[name], torch.Generator().manual_seed(0)
    w, v = A.clone().requires_grad_(), B.clone().requires_grad_()
    z = function(w, v)
    met = {node.name() for node in topological([get_gradient_edge(z).node])}
    assert name.split()[0] in met, "the case has no such node"
    directions = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in (w, v)]
    (found,) = Linearization([z], [w, v]).jvp(directions)
    _, expected = torch.func.jvp(function, (A, B), tuple(directions))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_each_rule_has_a_case() -> None:
    assert {name.split()[0] for name in CASES} == {*VIEW_RULES, *_BETWEEN}
