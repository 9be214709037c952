"""The rows of a Jacobian, as one matrix or as factors of each layer.

A linear layer's row for sample i and output j is gᵢⱼaᵢᵀ, with its input aᵢ and the gradient gᵢⱼ
at its output. Then JJᵀ is the elementwise product of the Gram matrices of a and g, and no row
need be formed: n²(in + out) multiplications take the place of n²·in·out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mlhf.curvature.vectors import unflatten

_STRIPE = 256  # columns of a symmetric product that are computed at once


class Block(Protocol):
    """The columns of J that belong to one layer's parameters.

    Attributes:
        parameters: Whose columns they are.
    """

    @property
    def parameters(self) -> Sequence[Tensor]: ...

    def dense(self) -> list[Tensor]:
        """Return the columns, (rows, numel) for each parameter."""
        ...

    def gram(self) -> Tensor:
        """Return the block's part of JJᵀ, (rows, rows)."""
        ...

    def transposed(self, a: Tensor) -> list[Tensor]:
        """Return Jᵀa for a (rows,), one tensor like each parameter."""
        ...

    def times(self, v: Sequence[Tensor]) -> Tensor:
        """Return Jv (rows,) for v like the parameters."""
        ...

    @property
    def squares(self) -> Tensor:
        """The sum of the squares of all elements."""
        ...


@dataclass(frozen=True)
class DenseBlock:
    """Columns as they are.

    Attributes:
        parameters: Whose they are.
        matrix: (rows, all their elements).
    """

    parameters: Sequence[Tensor]
    matrix: Tensor

    def dense(self) -> list[Tensor]:
        return list(torch.split(self.matrix, [p.numel() for p in self.parameters], 1))

    def gram(self) -> Tensor:
        return symmetric_product(self.matrix)

    def transposed(self, a: Tensor) -> list[Tensor]:
        return unflatten(a @ self.matrix, self.parameters)

    def times(self, v: Sequence[Tensor]) -> Tensor:
        return self.matrix @ torch.cat([t.reshape(-1) for t in v])

    @property
    def squares(self) -> Tensor:
        return self.matrix.square().sum()


@dataclass(frozen=True)
class LinearBlock:
    """A linear layer's columns, by its inputs and the gradients at its outputs.

    Attributes:
        parameters: Its weight (out, in), and its bias where there is one.
        inputs: a, shape (n, in).
        gradients: g, shape (n, k, out), for k outputs of each sample.
    """

    parameters: Sequence[Tensor]
    inputs: Tensor
    gradients: Tensor

    @property
    def _rows(self) -> Tensor:
        return self.gradients.flatten(0, 1)

    def dense(self) -> list[Tensor]:
        weight = torch.einsum("nko,ni->nkoi", self.gradients, self.inputs)
        found = [weight.reshape(len(self._rows), -1)]
        return [*found, self._rows] if len(self.parameters) == 2 else found

    def gram(self) -> Tensor:
        n, k, _ = self.gradients.shape
        inputs = self.inputs @ self.inputs.T
        if len(self.parameters) == 2:
            inputs += 1
        gram = self._rows @ self._rows.T
        gram.view(n, k, n, k).mul_(inputs.view(n, 1, n, 1))
        return gram

    def transposed(self, a: Tensor) -> list[Tensor]:
        n, k, _ = self.gradients.shape
        g = (self.gradients * a.view(n, k, 1)).sum(1)
        found = [g.T @ self.inputs]
        return [*found, g.sum(0)] if len(self.parameters) == 2 else found

    def times(self, v: Sequence[Tensor]) -> Tensor:
        outputs = self.inputs @ v[0].T
        if len(self.parameters) == 2:
            outputs = outputs + v[1]
        return (self.gradients * outputs.unsqueeze(1)).sum(-1).reshape(-1)

    @property
    def squares(self) -> Tensor:
        inputs = self.inputs.square().sum(1)
        if len(self.parameters) == 2:
            inputs = inputs + 1
        return (self.gradients.square().sum((1, 2)) * inputs).sum()


class JacobianRows:
    """The rows of J, or of SJ.

    Args:
        blocks: Their columns; each parameter belongs to at most one, the others' are zero.
        parameters: θ, in the order of flat vectors.
    """

    def __init__(self, blocks: Sequence[Block], parameters: Sequence[Tensor]) -> None:
        self._blocks = blocks
        self._parameters = parameters

    @property
    def factored(self) -> bool:
        """Whether JJᵀ needs no dense rows."""
        return all(isinstance(block, LinearBlock) for block in self._blocks)

    def dense(self) -> Tensor:
        """Return the rows, (rows, p)."""
        whole = self._blocks[0] if len(self._blocks) == 1 else None
        if isinstance(whole, DenseBlock) and _same(whole.parameters, self._parameters):
            return whole.matrix
        columns = {}
        for block in self._blocks:
            pairs = zip(block.parameters, block.dense(), strict=True)
            columns.update({id(p): part for p, part in pairs})
        rows = next(iter(columns.values()))
        return torch.cat(
            [columns.get(id(p), rows.new_zeros(len(rows), p.numel())) for p in self._parameters], 1
        )

    def gram(self) -> Tensor:
        """Return JJᵀ, (rows, rows)."""
        first, *others = self._blocks
        total = first.gram()
        for block in others:
            total += block.gram()
        return total

    def trace(self) -> Tensor:
        """Return tr JJᵀ = tr JᵀJ, a scalar."""
        return torch.stack([block.squares for block in self._blocks]).sum()

    def transposed(self, a: Tensor) -> Tensor:
        """Return Jᵀa, a flat vector (p,)."""
        found = {}
        for block in self._blocks:
            found.update(
                {id(p): t for p, t in zip(block.parameters, block.transposed(a), strict=True)}
            )
        parts = [found.get(id(p)) for p in self._parameters]
        return torch.cat(
            [
                a.new_zeros(p.numel()) if t is None else t.reshape(-1)
                for p, t in zip(self._parameters, parts, strict=True)
            ]
        )

    def times(self, v: Tensor) -> Tensor:
        """Return Jv, shape (rows,), for a flat vector v."""
        of = {id(p): t for p, t in zip(self._parameters, _like(v, self._parameters), strict=True)}
        parts = [block.times([of[id(p)] for p in block.parameters]) for block in self._blocks]
        return torch.stack(parts).sum(0)


def symmetric_product(a: Tensor) -> Tensor:
    """Return AAᵀ (n, n) for A (n, m), in little more than half the time of a plain product."""
    product = a.new_empty(len(a), len(a))
    for start in range(0, len(a), _STRIPE):
        stop = min(start + _STRIPE, len(a))
        below = a[start:] @ a[start:stop].T
        product[start:, start:stop] = below
        product[start:stop, stop:] = below[stop - start :].T
    return product


def _like(v: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    segments = torch.split_with_sizes(v, [p.numel() for p in parameters])
    return [s.view(p.shape) for s, p in zip(segments, parameters, strict=True)]


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))
