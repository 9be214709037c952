"""Tangents of fused kernels, whose backward torch cannot differentiate.

The kernels keep little, so a rule computes what it needs again from inputs and outputs, all
positions at once. Only CPU kernels have rules; on other devices passes run without fused kernels
(``switches.py``). Rules are as in ``rules.py``, but of a layer with several outputs they give
the tangents of all.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.gru import GRULayer, GRUTangent
from mlhf.curvature.rules import Tangents

_LSTM = 2  # among the modes of torch's recurrent layers


class _LSTMLayer:
    """A layer of an LSTM in one direction, by oneDNN.

    With gates i, f, g, o, σ their activations and h₀, c₀ the initial state:

        a_t = W x_t + V h_{t-1} + b,  c_t = f_t c_{t-1} + i_t g_t,  h_t = o_t tanh c_t

    Given all h, the gates are one matrix product, and so is what a tangent has of x, W, V and b.
    Left to do one time after another is V's product with the tangent of h, for all directions at
    once.
    """

    def __init__(self, node: Any) -> None:
        dtype = torch.promote_types(node._saved_weight0.dtype, torch.float32)
        self._dtype, self._reverse = node._saved_input.dtype, node._saved_reverse
        self._w, self._v = (t.to(dtype) for t in (node._saved_weight0, node._saved_weight1))
        self._x = self._in_order(node._saved_input.to(dtype))
        h = self._in_order(node._saved_result0.to(dtype))
        h0, c0 = (t.to(dtype).reshape(h[0].shape) for t in (node._saved_hx_, node._saved_cx_))
        self._before = torch.cat([h0.unsqueeze(0), h[:-1]])
        biases = (node._saved_weight2, node._saved_weight3) if node._saved_has_biases else ()
        self._find_factors([t.to(dtype) for t in biases], c0)

    def _in_order(self, sequence: Tensor) -> Tensor:
        """Return a sequence (T, B, …) as the layer goes through it, or what it gave as is usual."""
        return sequence.flip(0) if self._reverse else sequence

    def _find_factors(self, biases: Sequence[Tensor], c0: Tensor) -> None:
        """Compute ∂c_t/∂a_t, ∂h_t/∂a_t at constant c_t, ∂c_t/∂c_{t-1} and ∂h_t/∂c_t."""
        a = self._x @ self._w.T
        a += self._before @ self._v.T
        for bias in biases:
            a += bias
        i, f, g, o = a.chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), _tanh(g), o.sigmoid()
        c = i * g
        at_times = c.unbind()
        at_times[0].addcmul_(f[0], c0)
        for now, forgotten, before in zip(at_times[1:], f[1:].unbind(), at_times, strict=False):
            now.addcmul_(forgotten, before)
        c_before = torch.cat([c0.unsqueeze(0), c[:-1]])
        squashed = _tanh(c)
        of_gates = [g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)]
        self._of_gates = torch.stack([*of_gates, squashed * o * (1 - o)], -2).unsqueeze(1)
        self._kept = f.unbind()
        self._shown = (o * (1 - squashed * squashed)).unbind()

    def __call__(self, inputs: Tangents) -> tuple[Tensor, Tensor, Tensor]:
        return self.batched([inputs])[0]

    def batched(self, several: Sequence[Tangents]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return the tangents of outputs and last state for each direction's inputs."""
        a = torch.stack([self._of_inputs(each[:5]) for each in several], 1)  # (T, m, B, 4H)
        times, count, batch, gates = a.shape
        size = gates // 4
        dh, dc = (
            self._stacked([each[at] for each in several], (batch, size)) for at in (5, 6)
        )  # (m, B, H)
        v = self._v.T
        outputs = a.new_empty(times, count, batch, size)
        steps = zip(
            *(t.unbind() for t in (a, outputs, self._of_gates)),
            *(self._kept, self._shown),
            strict=True,
        )
        for of_inputs, out, of_gates, kept, shown in steps:
            flat = of_inputs.view(-1, gates)
            if dh is not None:
                flat.addmm_(dh.view(-1, size), v)
            moved = of_inputs.view(count, batch, 4, size).mul_(of_gates)
            new = moved[..., :3, :].sum(-2)
            dc = new if dc is None else new.addcmul_(kept, dc)
            dh = torch.addcmul(moved[..., 3, :], shown, dc, out=out)
        assert dh is not None
        assert dc is not None
        ends = zip(dh.to(self._dtype), dc.to(self._dtype), strict=True)
        each = self._in_order(outputs.to(self._dtype)).unbind(1)
        return [(out, *end) for out, end in zip(each, ends, strict=True)]

    def _of_inputs(self, inputs: Tangents) -> Tensor:
        """Return a's tangent without that of h, (T, B, 4H)."""
        dx, dw, dv, *biases = (None if t is None else t.to(self._w.dtype) for t in inputs)
        total: Tensor | None = None
        if dw is not None:
            total = self._x @ dw.T
        if dx is not None:
            along = self._in_order(dx) @ self._w.T
            total = along if total is None else total.add_(along)
        if dv is not None:
            along = self._before @ dv.T
            total = along if total is None else total.add_(along)
        if total is None:
            total = self._x.new_zeros(*self._x.shape[:2], len(self._w))
        for bias in biases:
            if bias is not None:
                total += bias
        return total

    def _stacked(self, tangents: Sequence[Tensor | None], shape: tuple[int, int]) -> Tensor | None:
        """Return the tangents of an initial state by direction, (m, B, H); None: all are zero."""
        some = [t for t in tangents if t is not None]
        if not some:
            return None
        zero = self._x.new_zeros(shape)
        return torch.stack(
            [zero if t is None else t.to(zero.dtype).reshape(shape) for t in tangents]
        )


def _tanh(x: Tensor) -> Tensor:
    """Return tanh x to an absolute precision, sooner than torch's, which is precise near 0 too."""
    return torch.sigmoid(2 * x).mul_(2).sub_(1)


@torch.no_grad()
def _recurrent_layer(node: Any) -> Callable[[Tangents], Any] | None:
    return _LSTMLayer(node) if node._saved_mode == _LSTM and not node._saved_batch_sizes else None


class _Attention:
    """o = softmax(S) v with S = a qkᵀ + mask, by the CPU's kernel for long sequences.

    P = softmax(S) is exp(S − l), l = log Σ exp S, which was kept; then

        do = (P ∘ dS) v − rowsum(P ∘ dS) ∘ o + P dv,  dS = a (dq kᵀ + q dkᵀ).

    What has the size of S is written as rarely as can be: sums of products are products of joined
    matrices. Several heads of q may share one of k and v.
    """

    def __init__(self, node: Any) -> None:
        q, k, v = node._saved_query, node._saved_key, node._saved_value
        self._dtype, self._heads = v.dtype, q.shape[-3]
        self._working = torch.promote_types(self._dtype, torch.float32)
        given = node._saved_scale
        self._scale = 1 / math.sqrt(q.shape[-1]) if given is None else given
        self._q = self._of_heads(q) * self._scale
        self._k, self._v = self._of_heads(k), self._of_heads(v)
        self._out = node._saved_output.to(self._working)
        total = node._saved_logsumexp.to(self._working).unsqueeze(-1)
        total = total.masked_fill(total == -math.inf, 0.0)  # of rows that see no key
        # S − l
        ones = self._k.new_ones(()).expand(*self._k.shape[:-1], 1)
        self._p = torch.cat([self._q, -total], -1) @ torch.cat([self._k, ones], -1).mT
        mask = node._saved_attn_mask
        if mask is not None:
            self._p += mask.to(self._working)
        if node._saved_is_causal:
            later = self._p.new_ones(self._p.shape[-2:], dtype=torch.bool).triu(1)
            self._p.masked_fill_(later, -math.inf)
        self._p.exp_()

    def _of_heads(self, tensor: Tensor) -> Tensor:
        """Return a tensor in the working precision, each head as often as it is used."""
        repeats = self._heads // tensor.shape[-3]
        tensor = tensor.to(self._working)
        return tensor if repeats == 1 else tensor.repeat_interleave(repeats, -3)

    def __call__(self, inputs: Tangents) -> Tensor:
        dq, dk, dv = (None if t is None else self._of_heads(t) for t in inputs[:3])
        lefts, rights = [], []
        if dq is not None:
            lefts.append(dq * self._scale)
            rights.append(self._k)
        if dk is not None:
            lefts.append(self._q)
            rights.append(dk)
        out: Tensor | None = None
        if lefts:
            weighted = torch.cat(lefts, -1) @ torch.cat(rights, -1).mT
            weighted *= self._p
            out = weighted @ self._v
            out.addcmul_(weighted.sum(-1, keepdim=True), self._out, value=-1)
        if dv is not None:
            along = self._p @ dv
            out = along if out is None else out.add_(along)
        assert out is not None
        return out.to(self._dtype)


@torch.no_grad()
def _attention(node: Any) -> Callable[[Tangents], Any] | None:
    return _Attention(node) if node._saved_dropout_p == 0 else None


# By a node's name, or by the class of a function in Python.
FUSED_RULES: dict[str | type, Callable[[Any], Callable[[Tangents], Any] | None]] = {
    GRULayer: GRUTangent,
    "MkldnnRnnLayerBackward0": _recurrent_layer,
    "ScaledDotProductFlashAttentionForCpuBackward0": _attention,
}
