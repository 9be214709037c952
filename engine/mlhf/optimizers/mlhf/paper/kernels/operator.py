"""The coordinatewise network's kernels as one torch operator, which a traced graph can call."""

import functools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, library

from mlhf.optimizers.learned.kinds import Segment
from mlhf.optimizers.mlhf.paper.kernels import cpu

# The state is overwritten; segments are (start, end, kind), one after the other.
_SCHEMA = (
    "coordinate_network(Tensor a, Tensor b, Tensor c, Tensor(s!) state, Tensor packed, "
    "int[] segments, float offset) -> Tensor"
)
# Registered for as long as it lives.
_registered = library.Library("mlhf", "FRAGMENT")  # type: ignore[no-untyped-call]
_registered.define(_SCHEMA)  # type: ignore[no-untyped-call]


def flat(segments: Sequence[Segment]) -> list[int]:
    """Return segments as the operator takes them."""
    return [edge for s in segments for edge in (s.start, s.end, s.kind)]


def network(
    inputs: Sequence[Tensor], state: Tensor, packed: Tensor, segments: list[int], offset: float
) -> Tensor:
    """Return what ``CoordinateNetwork.step`` returns; the state (4H, n) is overwritten."""
    out: Tensor = torch.ops.mlhf.coordinate_network(*inputs, state, packed, segments, offset)
    return out


def _on_cpu(
    a: Tensor, b: Tensor, c: Tensor, state: Tensor, packed: Tensor, segments: list[int],
    offset: float,
) -> Tensor:  # fmt: skip
    out = torch.empty_like(a)
    triple = cast(cpu.Triple, tuple(v.contiguous() for v in (a, b, c)))
    cpu.forward(triple, state, packed, _table(tuple(segments)), offset, state, out)
    return out


def _on_cuda(
    a: Tensor, b: Tensor, c: Tensor, state: Tensor, packed: Tensor, segments: list[int],
    offset: float,
) -> Tensor:  # fmt: skip
    from mlhf.optimizers.mlhf.paper.kernels import triton_kernel

    out = torch.empty_like(a)
    inputs = [v.contiguous() for v in (a, b, c)]
    triton_kernel.forward(inputs, state, packed, _parts(tuple(segments)), offset, state, out)
    return out


def _shape(
    a: Tensor, b: Tensor, c: Tensor, state: Tensor, packed: Tensor, segments: list[int],
    offset: float,
) -> Tensor:  # fmt: skip
    return torch.empty_like(a)


_registered.impl("coordinate_network", _on_cpu, "CPU")  # type: ignore[no-untyped-call]
_registered.impl("coordinate_network", _on_cuda, "CUDA")  # type: ignore[no-untyped-call]
library.register_fake("mlhf::coordinate_network", _shape, lib=_registered)


@functools.lru_cache(maxsize=64)
def _parts(segments: tuple[int, ...]) -> list[Segment]:
    edges = iter(segments)
    return [Segment(*part) for part in zip(edges, edges, edges, strict=True)]


@functools.lru_cache(maxsize=64)
def _table(segments: tuple[int, ...]) -> Tensor:
    return cpu.table(_parts(segments))
