"""All rotations of a network of small blocks, as one operator takes them."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.kernels.steps import Rotations
from mlhf.optimizers.mlhf.kronecker.blocks import Block

_LONGEST = 128  # side of a block; products of longer ones are a library's work


def are_small(blocks: Sequence[Block]) -> bool:
    """Whether the rotations of all blocks are for one operator."""
    return all(len(block.shape) == 2 and max(block.shape) <= _LONGEST for block in blocks)


def rotations(
    blocks: Sequence[Block],
    members: Sequence[Sequence[int]],
    unrotated: Sequence[int],
    parameters: Sequence[Tensor],
) -> Rotations | None:
    """Return them; None where the operator does not take them.

    Args:
        blocks: The basis's blocks.
        members: The indices of each one's parameters.
        unrotated: Those of the parameters without a block.
        parameters: All of them.
    """
    if not are_small(blocks) or any(p.dtype is not torch.float32 for p in parameters):
        return None
    starts = [0, *accumulate(p.numel() for p in parameters)]
    bases: list[Tensor] = []
    layout: list[int] = []
    for block, own in zip(blocks, members, strict=True):
        sides = block.sides
        if sides is None:
            return None
        left, right = sides
        bases += [] if left is None else [left]
        bases += [] if right is None else [right, right.mT.contiguous()]
        has_bias = len(own) == 2
        layout += [*block.shape, has_bias, left is not None, right is not None]
        layout += [starts[own[0]], starts[own[-1]] if has_bias else 0]
    for i in unrotated:
        layout += [parameters[i].numel(), 1, 0, 0, 0, starts[i], 0]
    return Rotations(bases, layout, [i for own in (*members, unrotated) for i in own])
