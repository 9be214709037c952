"""Gated recurrent layers whose gradient and tangent are computed by formulas of our own.

Torch has no fused kernel of them for CPUs, and keeps some fifteen nodes of each step in the graph.
Here a layer is one node, and of its backward pass only the recursion is done step by step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mlhf.curvature.rules import Tangents

_Optional = Tensor | None


class GRULayer(torch.autograd.Function):
    """A layer in one direction.

    With input x_t, state h_{t-1}, weights W, V and biases a, b of the three gates r, z, n:

        r = σ(W_r x + V_r h + …),  z = σ(W_z x + V_z h + …),  m = V_n h + b_n,
        n = tanh(W_n x + a_n + r m),  h_t = n + z (h_{t-1} − n)
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, w: Tensor, v: Tensor, a: _Optional, b: _Optional
    ) -> tuple[Tensor, Tensor]:
        """Return all states (T, B, H), and the last one.

        Args:
            ctx: The node.
            x: (T, B, in).
            h0: The state before, (B, H).
            w: W, (3H, in).
            v: V, (3H, H).
            a: (3H,), or None for zeros, as is b.
            b: Likewise.
        """
        times, batch, _ = x.shape
        size = h0.shape[1]
        of_x = x.flatten(0, 1) @ w.T if a is None else torch.addmm(a, x.flatten(0, 1), w.T)
        of_x = of_x.view(times, batch, 3 * size)
        of_h, states = torch.empty_like(of_x), x.new_empty(times, batch, size)
        gates, n = x.new_empty(times, batch, 2 * size), torch.empty_like(states)
        zero = x.new_zeros(()) if b is None else b
        steps = zip(
            *(t.unbind() for t in (of_h, of_x[..., : 2 * size], of_h[..., : 2 * size], gates)),
            *(t.unbind() for t in (gates[..., :size], gates[..., size:], of_x[..., 2 * size :])),
            *(t.unbind() for t in (of_h[..., 2 * size :], n, states)),
            strict=True,
        )
        h, vt = h0, v.T
        for whole, x_rz, h_rz, rz, r, z, x_n, m, candidate, state in steps:
            torch.addmm(zero, h, vt, out=whole)
            torch.add(x_rz, h_rz, out=rz).sigmoid_()
            torch.addcmul(x_n, r, m, out=candidate).tanh_()
            h = torch.lerp(candidate, h, z, out=state)
        ctx.save_for_backward(x, h0, w, v, a, b, gates, n, of_h[..., 2 * size :], states)
        return states, h.clone()

    @staticmethod
    def backward(ctx: Any, of_states: Tensor, of_last: Tensor) -> tuple[_Optional, ...]:
        """Return the gradients of what ``forward`` takes."""
        x, h0, w, v, a, b, gates, n, m, states = ctx.saved_tensors
        if torch.is_grad_enabled():  # they are to be differentiated
            return _with_graph((x, h0, w, v, a, b), (of_states, of_last))
        size = h0.shape[1]
        factors = _Factors(h0, gates, n, m, states)
        of_h, along = torch.empty_like(factors.of_h), torch.empty_like(states)
        of_h_flat = of_h.flatten(2)
        steps = zip(
            *(t.unbind() for t in (of_states, along, factors.of_h, of_h, of_h_flat)),
            factors.kept,
            strict=True,
        )
        dh = of_last
        for given, at_time, of_gates, d_gates, flat, z in reversed(list(steps)):
            dh = torch.add(dh, given, out=at_time)
            torch.mul(dh.unsqueeze(1), of_gates, out=d_gates)
            dh = torch.addmm(dh * z, flat, v)
        dn = along * factors.of_n
        d_x = torch.cat([of_h_flat[..., : 2 * size], dn], -1).flatten(0, 1)
        d_h = of_h_flat.flatten(0, 1)
        wanted = ctx.needs_input_grad
        return (
            (d_x @ w).view_as(x) if wanted[0] else None,
            dh if wanted[1] else None,
            d_x.T @ x.flatten(0, 1) if wanted[2] else None,
            d_h.T @ factors.before.flatten(0, 1) if wanted[3] else None,
            d_x.sum(0) if wanted[4] else None,
            d_h.sum(0) if wanted[5] else None,
        )


def _with_graph(
    inputs: tuple[_Optional, ...], gradients: tuple[Tensor, Tensor]
) -> tuple[_Optional, ...]:
    """Return the gradients of what ``GRULayer.forward`` takes, with a graph: by torch's layer."""
    x, h0, *weights = inputs
    assert x is not None
    assert h0 is not None
    given = [t for t in weights if t is not None]
    states, last = torch.gru(
        x, h0.unsqueeze(0), given, len(given) == 4, 1, 0.0, False, False, False
    )
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad((states, last[0]), wanted, gradients, create_graph=True))
    return tuple(next(found) if t is not None and t.requires_grad else None for t in inputs)


class _Factors:
    """Of every step: ∂h_t/∂(V h + b) (T, B, 3, H) by gate, ∂h_t/∂(W_n x + a_n), and z."""

    def __init__(self, h0: Tensor, gates: Tensor, n: Tensor, m: Tensor, states: Tensor) -> None:
        r, z = gates.chunk(2, -1)
        self.before = torch.cat([h0.unsqueeze(0), states[:-1]])
        self.of_n = (1 - z) * (1 - n * n)
        of_r = self.of_n * m * r * (1 - r)
        of_z = (self.before - n) * z * (1 - z)
        self.of_h = torch.stack([of_r, of_z, self.of_n * r], 2)
        self.kept = z.unbind()


class GRUTangent:
    """The tangent of a node of ``GRULayer``."""

    def __init__(self, node: Any) -> None:
        with torch.no_grad():
            saved: list[Any] = [t if t is None else t.detach() for t in node.saved_tensors]
            self._x, h0, self._w, self._v, _, _, *rest = saved
            self._factors = _Factors(h0, *rest)

    def __call__(self, inputs: Tangents) -> tuple[Tensor, Tensor]:
        return self.batched([inputs])[0]

    def batched(self, several: Sequence[Tangents]) -> list[tuple[Tensor, Tensor]]:
        """Return the tangents of all states and the last for each direction's inputs."""
        factors = self._factors
        known = torch.stack([self._known(each) for each in several], 1)  # (T, m, B, H)
        _, count, batch, size = known.shape
        states = torch.empty_like(known)
        vt = self._v.T
        dh: Tensor | None = None
        given = [each[1] for each in several]
        if any(t is not None for t in given):
            dh = torch.stack([known.new_zeros(batch, size) if t is None else t for t in given])
        steps = zip(
            *(known.unbind(), factors.of_h.unsqueeze(1).unbind(), factors.kept, states.unbind()),
            strict=True,
        )
        for new, of_gates, z, state in steps:
            if dh is None:
                dh = state.copy_(new)
                continue
            by_gate = (dh.view(-1, size) @ vt).view(count, batch, 3, size).mul_(of_gates)
            torch.sum(by_gate, 2, out=state)
            dh = state.add_(new).addcmul_(dh, z)
        assert dh is not None
        return list(zip(states.unbind(1), dh.clone(), strict=True))

    def _known(self, inputs: Tangents) -> Tensor:
        """Return h's tangent but for what goes through that of the state before, (T, B, H)."""
        dx, _, dw, dv, da, db = (*inputs, None, None)[:6]  # without biases there are four
        times, batch, _ = self._x.shape
        zeros = self._x.new_zeros(()).expand(times, batch, len(self._w))
        of_x = _sum([_times(self._x, dw), _times(dx, self._w), da], zeros)
        of_h = _sum([_times(self._factors.before, dv), db], zeros)
        size = self._v.shape[1]
        x_gates, h_gates = (t.expand(times, batch, 3 * size) for t in (of_x, of_h))
        of_gates = self._factors.of_h
        joint = (x_gates + h_gates).view(times, batch, 3, size)
        total: Tensor = (joint[..., :2, :] * of_gates[..., :2, :]).sum(2)
        total.addcmul_(x_gates[..., 2 * size :], self._factors.of_n)
        return total.addcmul_(h_gates[..., 2 * size :], of_gates[..., 2, :])


def _times(sequence: Tensor | None, matrix: Tensor | None) -> Tensor | None:
    return None if sequence is None or matrix is None else sequence @ matrix.T


def _sum(terms: Sequence[Tensor | None], zeros: Tensor) -> Tensor:
    some = [t for t in terms if t is not None]
    total = zeros
    for term in some:
        total = term if total is zeros else total + term
    return total


class OwnGRU(TorchFunctionMode):
    """Runs gated recurrent layers by ``GRULayer`` where they would run on a CPU otherwise."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.gru and _is_usual(args, kwargs):
            return _gru(*args)
        return func(*args, **(kwargs or {}))


def _is_usual(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    """Whether a call is of whole sequences on a CPU, in the weights' own precision.

    Not where activations are computed again, which happens without us.
    """
    if kwargs or len(args) != 9 or not isinstance(args[2], Sequence):
        return False
    x, h, weights = args[:3]
    tensors = [x, h, *weights]
    return (
        all(isinstance(t, Tensor) and t.is_cpu and t.dtype == x.dtype for t in tensors)
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() == 3
        and x.numel() > 0
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch._C._len_torch_dispatch_stack()  # not traced
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    )


def _gru(
    x: Tensor,
    h0: Tensor,
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """What ``torch.gru`` returns."""
    x = x.transpose(0, 1) if batch_first else x
    each, directions = 4 if has_biases else 2, 2 if bidirectional else 1
    last = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            at = layer * directions + direction
            w, v, *biases = weights[each * at : each * (at + 1)]
            a, b = biases or (None, None)
            inputs = x.flip(0) if direction else x
            states, state = GRULayer.apply(inputs, h0[at], w, v, a, b)  # type: ignore[no-untyped-call]
            outputs.append(states.flip(0) if direction else states)
            last.append(state)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and train and layer < layers - 1:
            x = torch.dropout(x, dropout, train)
    return x.transpose(0, 1) if batch_first else x, torch.stack(last)
