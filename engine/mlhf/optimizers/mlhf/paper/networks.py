"""The coordinatewise network on whole vectors, in (features, n) layout: the fast implementations.

``reference.py`` has the readable one. Here coordinates are columns, so that a layer of all the
coordinates of a kind is one matrix product (torch), or the whole network one pass over memory
(kernels).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.optimizers.learned.kinds import Segment
from mlhf.optimizers.mlhf.paper.kernels import cpu, operator
from mlhf.optimizers.mlhf.paper.kernels.choose import Choice, Wanted, choose
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights, Unpacked


class CoordinateNetwork:
    """softplus(RNN(tanh(inputs))) + offset for every coordinate, by its kind's weights.

    Args:
        weights: The meta-parameters; they are read at each call.
        segments: Which coordinates are of which kind.
        wanted: Which implementation to run; ``auto`` takes the fastest that can.
    """

    def __init__(
        self, weights: NetworkWeights, segments: Sequence[Segment], wanted: Wanted = "auto"
    ) -> None:
        self.weights = weights
        self.segments = list(segments)
        self._wanted = wanted
        self._table = cpu.table(self.segments)
        self._edges = operator.flat(self.segments)
        self._choices: dict[tuple[torch.device, torch.dtype], Choice] = {}
        self._tables: dict[torch.device, Tensor] = {}

    def choice(self, like: Tensor) -> Choice:
        """Return which implementation runs for such vectors, and why."""
        key = (like.device, like.dtype)
        if key not in self._choices:
            self._choices[key] = choose(self.weights, like, self._wanted)
        return self._choices[key]

    def step(self, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0) -> Tensor:
        """Return the outputs (n,); the state (4H, n) is overwritten. Without autograd.

        Args:
            inputs: Vectors (n,), not yet squashed.
        """
        path = self.choice(state).path
        packed = self.weights.packed().detach()
        if path == "torch":
            with torch.no_grad():
                out, new = self._torch_forward(inputs, state, offset)
            state.copy_(new)
            return out
        vectors = cast(cpu.Triple, tuple(v.contiguous() for v in inputs))
        out = torch.empty_like(vectors[0])
        if path == "triton":
            from mlhf.optimizers.mlhf.paper.kernels import triton_kernel

            triton_kernel.forward(vectors, state, packed, self.segments, offset, state, out)
        else:
            cpu.forward(vectors, state, packed, self._table, offset, state, out)
        return out

    def __call__(
        self, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs (n,) and the new state (4H, n), differentiable in everything."""
        if self.choice(state).path == "cpp":
            out, new = _Fused.apply(  # type: ignore[no-untyped-call]
                *inputs, state, self.weights.packed(), self._table, offset
            )
            return out, new
        return self._torch_forward(inputs, state, offset)  # Triton's kernel has no backward

    def traced(
        self, packed: Tensor, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0
    ) -> Tensor:
        """As ``step``, in operations that can be traced into a graph.

        Args:
            packed: The weights, as ``weights.packed()`` returns them.
        """
        if self.choice(state).path != "torch":
            return operator.network(inputs, state, packed, self._edges, offset)
        out, new = self._torch_forward(inputs, state, offset, self.weights.unpacked(packed))
        state.copy_(new)
        return out

    def _torch_forward(
        self,
        inputs: Sequence[Tensor],
        state: Tensor,
        offset: float,
        weights: NetworkWeights | Unpacked | None = None,
    ) -> tuple[Tensor, Tensor]:
        squashed = [torch.tanh(v) for v in inputs]
        weights = self.weights if weights is None else weights
        out, new = columns(squashed, state, weights, self.segments)
        return F.softplus(out) + offset, new


def columns(
    inputs: Sequence[Tensor],
    state: Tensor,
    weights: NetworkWeights | Unpacked,
    segments: Sequence[Segment],
) -> tuple[Tensor, Tensor]:
    """Return what ``reference.network`` does, computed on rows of coordinates."""
    outputs, states = [], []
    for segment in segments:
        x = torch.stack([v[segment.start : segment.end] for v in inputs])
        h1, c1, h2, c2 = state[:, segment.start : segment.end].chunk(4)
        k = segment.kind
        h1, c1 = _cell(x, h1, c1, weights.w1[k], weights.b1[k])
        h2, c2 = _cell(h1, h2, c2, weights.w2[k], weights.b2[k])
        outputs.append(weights.w3[k] @ h2 + weights.b3[k])
        states.append(torch.cat([h1, c1, h2, c2]))
    return torch.cat(outputs), torch.cat(states, 1)


def _cell(x: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    gates = torch.addmm(bias.unsqueeze(1), weight, torch.cat([x, h]))
    i, f, g, o = gates.chunk(4)
    c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
    return torch.sigmoid(o) * torch.tanh(c), c


class _Fused(torch.autograd.Function):
    """The C++ kernel; the backward recomputes the gates instead of storing them."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        state: Tensor,
        packed: Tensor,
        table: Tensor,
        offset: float,
    ) -> tuple[Tensor, Tensor]:
        inputs = (a.contiguous(), b.contiguous(), c.contiguous())
        state, packed = state.contiguous(), packed.contiguous()
        out, new = torch.empty_like(inputs[0]), torch.empty_like(state)
        cpu.forward(inputs, state, packed, table, offset, new, out)
        ctx.save_for_backward(*inputs, state, packed, table)
        ctx.set_materialize_grads(False)
        return out, new

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        a, b, c, state, packed, table = ctx.saved_tensors
        d_out, d_new = gradients
        if d_out is None and d_new is None:
            return (None,) * 7
        d_out = torch.zeros_like(a) if d_out is None else d_out.contiguous()
        d_new = None if d_new is None else d_new.contiguous()
        d_inputs, d_state, d_packed = cpu.backward(
            (a, b, c), state, packed, table, d_out, d_new, ctx.needs_input_grad[:3]
        )
        return (*d_inputs, d_state, d_packed, None, None)
