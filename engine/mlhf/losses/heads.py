"""Several heads: a weighted sum of losses of parts of one output, each with its own targets."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.loss_object import LossAt, TensorLoss
from mlhf.curvature.weighted_loss import WeightedLoss


@dataclass(frozen=True)
class Head:
    """One head.

    Attributes:
        loss: Of its outputs and its targets; made with ``sample_weights`` where all are.
        shape: Of its outputs for one sample.
        weight: Of its loss in the sum.
    """

    loss: WeightedLoss
    shape: tuple[int, ...]
    weight: float = 1.0

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Heads(TensorLoss):
    """Σ over heads of weight · loss, of outputs that are laid side by side: (B, Σ sizes).

    Args:
        heads: By name, in the order of the outputs. The targets are a mapping of these names,
            or a pair of it and the samples' weights (B,).
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        self.heads = dict(heads)
        sizes = {head.loss.sample_weights for head in self.heads.values()}
        if len(sizes) != 1:
            raise ValueError("either all heads have sample_weights, or none")
        (self.sample_weights,) = sizes

    def __call__(self, z: Tensor, y: Any) -> Tensor:
        terms = [h.weight * h.loss(own, t) for h, own, t in self.parts(z, y)]
        return torch.stack(terms).sum()

    def parts(self, z: Tensor, y: Any) -> list[tuple[Head, Tensor, Any]]:
        """Return each head with its own outputs and targets.

        Raises:
            CurvatureError: they are not those of the heads.
        """
        targets = self._targets(y)
        sizes = [head.size for head in self.heads.values()]
        if z.ndim != 2 or z.shape[1] != sum(sizes):
            raise CurvatureError(
                f"the heads need outputs of shape (B, {sum(sizes)}); got {tuple(z.shape)}"
            )
        slices = torch.split(z, sizes, 1)
        return [
            (head, own.reshape(len(z), *head.shape), targets[name])
            for (name, head), own in zip(self.heads.items(), slices, strict=True)
        ]

    def at(self, z: Tensor, y: Any) -> LossAt:
        parts = self.parts(z, y)
        found = [(h, h.loss.at(own, t)) for h, own, t in parts]

        def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat(
                [
                    h.weight * t.reshape(len(z), -1)
                    for (h, _), t in zip(found, tensors, strict=True)
                ],
                1,
            )

        def hessian_product(u: Tensor) -> Tensor:
            slices = torch.split(u, [h.size for h, _ in found], 1)
            return side_by_side(
                [
                    at.hessian_product(s.reshape(len(z), *h.shape))
                    for (h, at), s in zip(found, slices, strict=True)
                ]
            )

        value = torch.stack([h.weight * at.value for h, at in found]).sum()
        return LossAt(value, side_by_side([at.gradient for _, at in found]), hessian_product)

    def part_weights(self, y: Any, parts: Sequence[slice]) -> list[float] | None:
        targets = self._targets(y)
        found = [head.loss.part_weights(targets[n], parts) for n, head in self.heads.items()]
        for other in found[1:]:
            if not all(abs(a - b) < 1e-6 for a, b in zip(found[0] or (), other or (), strict=True)):
                raise CurvatureError(
                    "heads that ignore labels or weigh classes cannot be computed in parts, as "
                    "each has a mean of its own: leave out micro_batch and curvature_batch"
                )
        return found[0]

    def rows(self, z: Tensor) -> int:
        return len(z)

    def sampled_root(self, z: Tensor, y: Any, generator: torch.Generator) -> Tensor:
        return torch.cat(
            [
                math.sqrt(h.weight) * h.loss.sampled_root(own, t, generator).reshape(len(z), -1)
                for h, own, t in self.parts(z, y)
            ],
            1,
        )

    def exact_root(self, z: Tensor, y: Any) -> Iterator[Tensor]:
        at = 0
        for head, own, target in self.parts(z, y):
            for root in head.loss.exact_root(own, target):
                g = torch.zeros_like(z)
                g[:, at : at + head.size] = math.sqrt(head.weight) * root.reshape(len(z), -1)
                yield g
            at += head.size

    def _targets(self, y: Any) -> dict[str, Any]:
        targets, weights = y if self.sample_weights else (y, None)
        if not isinstance(targets, Mapping) or set(targets) != set(self.heads):
            raise CurvatureError(
                f"the targets should be a mapping with the heads {', '.join(self.heads)}"
            )
        if not self.sample_weights:
            return dict(targets)
        return {name: (target, weights) for name, target in targets.items()}
