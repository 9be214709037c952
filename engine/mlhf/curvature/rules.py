"""Tangents of single autograd nodes, computed from what the forward pass saved.

A rule reads a node once and returns a function from the tangents of the node's inputs to the
tangent of its output, or None where it does not apply to this node. A tangent of None is
zero; at least one of a node's inputs has another. The operations here are those where a rule
pays off in speed. For every other node the tangent comes from differentiating its own
backward (``linearize.py``). If a tangent function has a method ``batched``, it computes
several directions at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.curvature.errors import CurvatureError

Tangents = tuple[Tensor | None, ...]
Tangent = Callable[[Tangents], Tensor]
Rule = Callable[[Any], Tangent | None]

_aten = torch.ops.aten


def _self_adjoint(node: Any) -> Tangent | None:
    """Functions of one input whose Jacobian is symmetric: the backward is the tangent."""
    saved = getattr(node, "_saved_self", None)
    if node._input_metadata[0].dtype.is_complex or (saved is not None and saved.is_complex()):
        return None  # the backward uses the conjugate

    def tangent(inputs: Tangents) -> Tensor:
        result: Tensor = node(inputs[0])
        return result

    return tangent


def _relu(node: Any) -> Tangent:
    result = node._saved_result

    def tangent(inputs: Tangents) -> Tensor:
        out: Tensor = _aten.threshold_backward(inputs[0], result, 0)
        return out

    return tangent


def _add(node: Any) -> Tangent | None:
    if node._saved_alpha != 1:
        return None
    shape, dtype = _output_shape(node), node._input_metadata[0].dtype

    def tangent(inputs: Tangents) -> Tensor:
        a, b = inputs
        if a is not None and b is not None:
            return a + b
        only = a if a is not None else b
        assert only is not None
        return only.expand(shape).to(dtype)  # the other operand may have had a wider type

    return tangent


def _mul(node: Any) -> Tangent:
    # An operand is saved only if the other one has a tangent.
    left, right = node._saved_self, node._saved_other

    def tangent(inputs: Tangents) -> Tensor:
        a, b = inputs
        out: Tensor | None = None if a is None else a * right
        if b is not None:
            out = left * b if out is None else torch.addcmul(out, left, b)
        assert out is not None
        return out

    return tangent


def _times(node: Any) -> Tangent:
    factor = node._saved_other

    def tangent(inputs: Tangents) -> Tensor:
        (a,) = inputs
        assert a is not None
        out: Tensor = a * factor
        return out

    return tangent


def _prelu(node: Any) -> Tangent:
    """Needed, as torch fails to differentiate this node's backward when called alone."""
    x, weight = node._saved_self, node._saved_weight
    positive = x >= 0

    def tangent(inputs: Tangents) -> Tensor:
        dx, dweight = inputs
        out = x.new_zeros(()) if dx is None else torch.where(positive, dx, weight * dx)
        return out if dweight is None else out + torch.where(positive, 0.0, x * dweight)

    return tangent


def _transpose2d(node: Any) -> Tangent:
    def tangent(inputs: Tangents) -> Tensor:
        (a,) = inputs
        assert a is not None
        return a.t()

    return tangent


def _reshape(node: Any) -> Tangent:
    shape = _output_shape(node)

    def tangent(inputs: Tangents) -> Tensor:
        (a,) = inputs
        assert a is not None
        return a.reshape(shape)

    return tangent


def _addmm(node: Any) -> Tangent | None:
    if node._saved_alpha != 1 or node._saved_beta != 1:
        return None
    left, right = node._saved_mat1, node._saved_mat2
    shape = _output_shape(node)

    def tangent(inputs: Tangents) -> Tensor:
        bias, a, b = inputs
        out = bias
        for first, second in ((left, b), (a, right)):
            if first is None or second is None:
                continue
            if out is None:
                out = first.mm(second)
            elif out is bias:
                out = torch.addmm(out, first, second)
            else:
                out.addmm_(first, second)
        assert out is not None
        return out.expand(shape)

    return tangent


def _matrix_product(node: Any) -> Tangent:
    """The product of two matrices, or of two batches of matrices."""
    left, right = node._saved_self, node._saved_mat2
    add = Tensor.addmm_ if len(_output_shape(node)) == 2 else Tensor.baddbmm_

    def tangent(inputs: Tangents) -> Tensor:
        a, b = inputs
        out: Tensor | None = None if a is None else a @ right
        if b is not None:
            out = left @ b if out is None else add(out, left, b)
        assert out is not None
        return out

    return tangent


class _Convolution:
    """The tangent of a convolution, of several directions at once where that is less work.

    The directions' weights are then joined into one convolution of the input. OneDNN computes
    channels in blocks of 16, so two directions of 8 channels cost as much as one.
    """

    def __init__(self, node: Any) -> None:
        self._x, self._weight = node._saved_input, node._saved_weight
        self._settings = (
            node._saved_stride,
            node._saved_padding,
            node._saved_dilation,
            node._saved_transposed,
            node._saved_output_padding,
            node._saved_groups,
        )
        self._shape = _output_shape(node)
        self._can_join = node._saved_groups == 1 and not node._saved_transposed

    def __call__(self, inputs: Tangents) -> Tensor:
        dx, dw, db = inputs
        of_weight = None if dw is None else torch.convolution(self._x, dw, db, *self._settings)
        return self._sum(dx, of_weight, db)

    def batched(self, several: Sequence[Tangents]) -> list[Tensor]:
        """Return the tangent for each direction's inputs; an input is zero in all or in none."""
        weights = [dw for _, dw, _ in several if dw is not None]
        biases = [db for _, _, db in several if db is not None]
        channels, count = self._shape[1], len(several)
        fewer = _blocks(count * channels) < count * _blocks(channels)
        if (
            not (self._can_join and fewer and self._x is not None and self._x.is_cpu)
            or len(weights) < count
            or len(biases) not in (0, count)
        ):
            return [self(inputs) for inputs in several]
        joined = torch.convolution(
            self._x, torch.cat(weights), torch.cat(biases) if biases else None, *self._settings
        )
        outputs = torch.split_with_sizes(joined, [channels] * count, 1)
        return [
            output.contiguous() if dx is None else self._sum(dx, output, None)
            for (dx, *_), output in zip(several, outputs, strict=True)
        ]

    def _sum(self, dx: Tensor | None, of_weight: Tensor | None, db: Tensor | None) -> Tensor:
        """Return the output's tangent, given the term of the weight's (and bias's) tangent."""
        if dx is not None:
            bias = db if of_weight is None else None
            of_input = torch.convolution(dx, self._weight, bias, *self._settings)
            return of_input if of_weight is None else of_input.add_(of_weight)
        if of_weight is not None:
            return of_weight
        assert db is not None
        spread = db.view(1, -1, *(1,) * (len(self._shape) - 2))
        return spread.expand(self._shape)


def _blocks(channels: int) -> int:
    return -(-channels // 16)


def _max_pool2d(node: Any) -> Tangent:
    index = node._saved_result1
    flat = index.flatten(-2)

    def tangent(inputs: Tangents) -> Tensor:
        (a,) = inputs
        assert a is not None
        return a.flatten(-2).gather(-1, flat).view(index.shape)

    return tangent


def _batch_norm(node: Any) -> Tangent | None:
    x, weight, training, eps = (
        node._saved_input,
        node._saved_weight,
        node._saved_training,
        node._saved_eps,
    )
    if weight is not None and weight.dtype != x.dtype:  # under autocast
        return None
    running_mean, running_var = node._saved_running_mean, node._saved_running_var
    if training:
        mean, scale = node._saved_result1, node._saved_result2
    else:
        mean, scale = running_mean, (running_var + eps).rsqrt()
    shape = (1, -1, *(1,) * (x.dim() - 2))
    normed: list[Tensor] = []

    def tangent(inputs: Tangents) -> Tensor:
        dx, dweight, dbias = inputs
        out: Tensor | None = None
        if dx is not None:
            # γσ⁻¹(I − 11ᵀ/n − x̂x̂ᵀ/n) is symmetric: the tangent is the input's backward.
            statistics = (running_mean, running_var, mean, scale)
            out, _, _ = _aten.native_batch_norm_backward(
                dx, x, weight, *statistics, training, eps, [True, False, False]
            )
        if dweight is not None:
            if not normed:
                normed.append((x - mean.view(shape)).mul_(scale.view(shape)))
            if out is None:
                out = normed[0] * dweight.view(shape)
            else:
                out.addcmul_(normed[0], dweight.view(shape))
        if dbias is not None:
            spread = dbias.view(shape)
            out = spread.expand(x.shape) if out is None else out.add_(spread)
        assert out is not None
        return out

    return tangent


def _layer_norm(node: Any) -> Tangent | None:
    x, weight, shape = node._saved_input, node._saved_weight, list(node._saved_normalized_shape)
    if weight is not None and weight.dtype != x.dtype:  # under autocast
        return None
    mean, scale = node._saved_result1, node._saved_result2
    normed = (x - mean) * scale

    def tangent(inputs: Tangents) -> Tensor:
        dx, dweight, dbias = inputs
        out: Tensor | None = None
        if dx is not None:
            # Without γ the Jacobian is symmetric, so the backward is the tangent; then comes γ.
            out, _, _ = _aten.native_layer_norm_backward(
                dx, x, shape, mean, scale, None, None, [True, False, False]
            )
            assert out is not None
            if weight is not None:
                out = out * weight
        if dweight is not None:
            out = normed * dweight if out is None else out.addcmul_(normed, dweight)
        if dbias is not None:
            out = dbias.expand(x.shape) if out is None else out + dbias
        assert out is not None
        return out

    return tangent


def _embedding(node: Any) -> Tangent:
    _refuse_scaled(node)
    indices, padding = node._saved_indices, node._saved_padding_idx
    # The padding row is a constant: its gradient is zero whatever the loss. A network without
    # one has −1 here, which nodes keep as 2⁶⁴ − 1.
    padded = (indices == padding).unsqueeze(-1) if padding < 2**63 else None

    def tangent(inputs: Tangents) -> Tensor:
        (weight,) = inputs
        assert weight is not None
        out = F.embedding(indices, weight)
        return out if padded is None else out.masked_fill_(padded, 0.0)

    return tangent


def _embedding_bag(node: Any) -> Tangent:
    """Needed, as torch cannot differentiate this node's backward."""
    _refuse_scaled(node)
    indices, offsets, mode = node._saved_indices, node._saved_offsets, node._saved_mode
    filled, largest = node._saved_result2 > 0, node._saved_result3
    padding, weight, scales = (
        node._saved_padding_idx,
        node._saved_weight,  # only if the per-sample weights have a tangent
        node._saved_per_sample_weights,
    )
    include_last = _output_shape(node)[0] < len(offsets)
    padding = -1 if padding >= 2**63 else padding

    def bags(table: Tensor, scales: Tensor | None) -> Tensor:
        out: Tensor = _aten._embedding_bag(
            table, indices, offsets, False, mode, False, scales, include_last, padding
        )[0]
        return out

    def tangent(inputs: Tangents) -> Tensor:
        dweight, dscales = inputs if len(inputs) > 1 else (inputs[0], None)
        if mode == 2:  # the maximum, which has no per-sample weights
            assert dweight is not None
            return torch.where(filled.unsqueeze(1), dweight.gather(0, largest), 0.0)
        out = None if dweight is None else bags(dweight, scales)
        if dscales is not None:
            along = bags(weight, dscales)
            out = along if out is None else out + along
        assert out is not None
        return out

    return tangent


def _refuse_scaled(node: Any) -> None:
    if node._saved_scale_grad_by_freq:
        raise CurvatureError(
            "an embedding with scale_grad_by_freq has a backward that is not its derivative"
        )


def _output_shape(node: Any) -> tuple[int, ...]:
    return tuple(node._input_metadata[0].shape)


_SELF_ADJOINT = (
    *("Elu", "Gelu", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "LogSigmoid", "Mish"),
    *("Sigmoid", "Silu", "Softplus", "Tanh", "Threshold"),
    "NativeDropout",  # a constant mask
    *("SafeSoftmax", "Softmax"),  # along one dimension: diag(p) − ppᵀ
    *("Abs", "Exp", "Log", "Neg", "Pow", "Rsqrt", "Sqrt"),
)

RULES: dict[str, Rule] = {
    "AddBackward0": _add,
    "AddmmBackward0": _addmm,
    "BmmBackward0": _matrix_product,
    "ConvolutionBackward0": _Convolution,
    "EmbeddingBackward0": _embedding,
    "EmbeddingBagBackward0": _embedding_bag,
    "MaxPool2DWithIndicesBackward0": _max_pool2d,
    "MmBackward0": _matrix_product,
    "MulBackward0": _mul,
    "MulBackward1": _times,
    "NativeBatchNormBackward0": _batch_norm,
    "NativeLayerNormBackward0": _layer_norm,
    "PreluKernelBackward0": _prelu,
    "ReluBackward0": _relu,
    "TBackward0": _transpose2d,
    "UnsafeViewBackward0": _reshape,
    "ViewBackward0": _reshape,
    **{f"{name}Backward0": _self_adjoint for name in _SELF_ADJOINT},
}
