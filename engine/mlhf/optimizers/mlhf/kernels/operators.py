"""The kernels as torch operators: eager code and traced graphs call them, on any device.

Here are their schemas, shapes and gradients, and how they run on CUDA (Triton); how they run
on a CPU is in ``kernels.cpp``, which ``library`` loads. ``segments`` are (start, end, kind) of
each, one after the other.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, library

from mlhf.optimizers.learned.kinds import Segment

_BACKWARD_CHUNK = 1 << 14  # as in kernels.cpp
_INPUTS = "Tensor a, Tensor b, Tensor c"
_SETTING = "Tensor packed, int[] segments"
# Registered for as long as it lives.
_registered = library.Library("mlhf", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema in (
    # softplus(network(tanh inputs)) + offset; the state is overwritten, unless a[0] is NaN: then
    # the outputs are NaN and the state stays.
    f"coordinate_network_step({_INPUTS}, Tensor(s!) state, {_SETTING}, float offset) -> Tensor",
    # The same and the new state, differentiable.
    f"coordinate_network({_INPUTS}, Tensor state, {_SETTING}, float offset) -> (Tensor, Tensor)",
    # Gradients of a, b, c, state, and packed, the last by chunk.
    f"coordinate_network_backward({_INPUTS}, Tensor state, {_SETTING}, Tensor d_out, "
    "Tensor? d_state_out) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    # Conjugate gradients' vector work; ⟨r, r⟩ and ⟨r, inverse∘r⟩ by chunk.
    "pcg_begin(Tensor(p!) p, Tensor r, Tensor inverse) -> Tensor",
    "pcg_move(Tensor(x!) x, Tensor(r!) r, Tensor p, Tensor ap, Tensor inverse, Tensor alpha) "
    "-> Tensor",
    "pcg_direction(Tensor(p!) p, Tensor r, Tensor inverse, Tensor beta) -> ()",
    # A step's damping: the second moment, s, D + s, Pb, and ⟨Pb, b⟩, ⟨b, b⟩. ``numbers`` are β₂,
    # what b² is multiplied by, ε, the correction of √v, D's factor, and the weight decay.
    "kronecker_damp(Tensor b, Tensor? moment, Tensor diagonal, Tensor scale, int[] sizes, "
    "float[] factors, float[] numbers) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    # From gradients, in the order of blocks, to the preconditioned one: b, the first four of
    # those, Pb as the flattened parameters have it, and the products. ``layout`` has out, inner,
    # whether there are a bias, a left and a right basis, and where weight and bias are.
    "kronecker_direction(Tensor[] gradients, Tensor[] bases, int[] layout, Tensor? moment, "
    "Tensor diagonal, Tensor scale, float[] factors, float[] numbers) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    # ⟨q_i, s q_j⟩, ⟨q_i, d q_j⟩ and ⟨q_i, b⟩ of m vectors, side by side: (m, 2m + 1).
    "kronecker_products(Tensor[] vectors, Tensor s, Tensor d, Tensor b) -> Tensor",
    # Two linear combinations by the same factors.
    "kronecker_combine(Tensor[] first, Tensor[] second, float[] factors) -> (Tensor, Tensor)",
    # The same; factor times the second is added to the parameters, and they to their means.
    "kronecker_advance(Tensor[] first, Tensor[] second, float[] factors, Tensor(p!)[] parameters, "
    "Tensor(m!)[] means, float factor, float weight) -> (Tensor, Tensor)",
):
    _registered.define(_schema)  # type: ignore[no-untyped-call]
_ops = torch.ops.mlhf


def flat(segments: Sequence[Segment]) -> list[int]:
    """Return segments as the operators take them."""
    return [edge for s in segments for edge in (s.start, s.end, s.kind)]


def network_step(
    inputs: Sequence[Tensor], state: Tensor, packed: Tensor, segments: list[int], offset: float
) -> Tensor:
    """Return what ``CoordinateNetwork.step`` returns; the state (4H, n) is overwritten."""
    out: Tensor = _ops.coordinate_network_step.default(*inputs, state, packed, segments, offset)
    return out


def network(
    inputs: Sequence[Tensor], state: Tensor, packed: Tensor, segments: list[int], offset: float
) -> tuple[Tensor, Tensor]:
    """Return the outputs (n,) and the new state (4H, n), differentiable. On a CPU only."""
    out, new = _ops.coordinate_network.default(*inputs, state, packed, segments, offset)
    return out, new


def _step_on_cuda(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    packed: Tensor,
    segments: list[int],
    offset: float,
) -> Tensor:
    from mlhf.optimizers.mlhf.kernels import triton_kernel

    out = torch.empty_like(a)
    inputs = [v.contiguous() for v in (a, b, c)]
    triton_kernel.forward(inputs, state, packed, _segments(tuple(segments)), offset, state, out)
    return out


@functools.lru_cache(maxsize=64)
def _segments(flat: tuple[int, ...]) -> list[Segment]:
    edges = iter(flat)
    return [Segment(*each) for each in zip(edges, edges, edges, strict=True)]


def _step_shape(a: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(a)


def _network_shapes(
    a: Tensor, b: Tensor, c: Tensor, state: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(a), torch.empty_like(state)


def _backward_shapes(
    a: Tensor, b: Tensor, c: Tensor, state: Tensor, packed: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    chunks = -(-a.numel() // _BACKWARD_CHUNK)
    by_chunk = packed.new_empty((chunks, *packed.shape), dtype=torch.float64)
    return (*(torch.empty_like(a) for _ in range(3)), torch.empty_like(state), by_chunk)


_registered.impl("coordinate_network_step", _step_on_cuda, "CUDA")  # type: ignore[no-untyped-call]
library.register_fake("mlhf::coordinate_network_step", _step_shape, lib=_registered)
library.register_fake("mlhf::coordinate_network", _network_shapes, lib=_registered)
library.register_fake("mlhf::coordinate_network_backward", _backward_shapes, lib=_registered)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, segments, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.segments = segments
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, d_out: Tensor | None, d_state_out: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gates are computed again instead of being kept."""
    a, b, c, state, packed = ctx.saved_tensors
    if d_out is None and d_state_out is None:
        return (None,) * 7
    if d_out is None:
        d_out = torch.zeros_like(a)
    *gradients, by_chunk = _ops.coordinate_network_backward.default(
        a, b, c, state, packed, ctx.segments, d_out, d_state_out
    )
    return (*gradients, by_chunk.sum(0).to(packed.dtype), None, None)


library.register_autograd(
    "mlhf::coordinate_network", _backward, setup_context=_save, lib=_registered
)
