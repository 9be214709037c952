"""Losses that are weighted means over positions: of samples, tokens or pixels."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.loss_object import LossAt, TensorLoss


class WeightedLoss(TensorLoss):
    """A loss ℓ = Σᵢ cᵢ sᵢ ℓᵢ / Σᵢ cᵢ nᵢ over the positions i of a batch.

    A position is a sample, a token, or a pixel, and has K outputs. cᵢ is 0 where a position is
    ignored and else 1, nᵢ is its weight in the mean (1, but for class weights), and sᵢ is the
    weight of its sample: 1 in the mean over the training set.

    Args:
        channel_axis: The axis of outputs (and of real targets) that has the K outputs of a
            position: −1, or 1 for images.
        sample_weights: Whether y is a pair: targets, and the samples' weights (B,).
    """

    name = "loss"

    def __init__(self, *, channel_axis: int = -1, sample_weights: bool = False) -> None:
        self.channel_axis = channel_axis
        self.sample_weights = sample_weights

    @abstractmethod
    def target(self, z: Tensor, y: Tensor) -> Tensor:
        """Return y as the other methods take it, for outputs z (…, K).

        Raises:
            CurvatureError: it does not fit them.
        """

    @abstractmethod
    def losses(self, z: Tensor, y: Tensor) -> Tensor:
        """Return ℓᵢ, shape (…), for outputs (…, K); for autograd too."""

    @abstractmethod
    def derivatives(self, z: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return ∂ℓᵢ/∂zᵢ (…, K) and u ↦ (∂²ℓᵢ/∂zᵢ²)uᵢ."""

    @abstractmethod
    def sampled_roots(self, z: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return g (…, K) with E[gᵢgᵢᵀ] = ∂²ℓᵢ/∂zᵢ²."""

    @abstractmethod
    def exact_roots(self, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yield K times g (…, K) with Σ gᵢgᵢᵀ = ∂²ℓᵢ/∂zᵢ²."""

    def counted(self, y: Tensor) -> Tensor | None:
        """Return cᵢ as booleans (…); None: every position counts."""
        return None

    def norms(self, y: Tensor) -> Tensor | None:
        """Return nᵢ (…); None: all are 1."""
        return None

    def __call__(self, z: Tensor, y: Any) -> Tensor:
        targets, weights = self._split(y)
        z = self.moved(z)
        targets = self.target(z, targets)
        losses = self.losses(z, targets)
        return (losses * self._factors(losses, targets, weights)).sum()

    def at(self, z: Tensor, y: Any) -> LossAt:
        targets, weights = self._split(y)
        z = self.moved(z.detach())
        targets = self.target(z, targets)
        losses = self.losses(z, targets)
        factors = self._factors(losses, targets, weights)
        gradient, product = self.derivatives(z, targets)
        scale = factors.unsqueeze(-1)

        def hessian_product(u: Tensor) -> Tensor:
            return self._back(scale * product(self.moved(u)))

        return LossAt((losses * factors).sum(), self._back(scale * gradient), hessian_product)

    def sums(self, z: Tensor, y: Any) -> tuple[Tensor, Tensor]:
        """Return Σ cᵢ sᵢ ℓᵢ and Σ cᵢ sᵢ nᵢ in float64, whose quotient over a set is its loss."""
        targets, weights = self._split(y)
        z = self.moved(z.detach())
        targets = self.target(z, targets)
        losses = self.losses(z, targets).double()
        counted, norms = self.counted(targets), self.norms(targets)
        of = losses.new_ones(()) if weights is None else _spread(weights, losses)
        if counted is not None:
            of = of * counted
        return (losses * of).sum(), (of if norms is None else of * norms).expand_as(losses).sum()

    def part_weights(self, y: Any, parts: Sequence[slice]) -> list[float] | None:
        targets, _ = self._split(y)
        counted, norms = self.counted(targets), self.norms(targets)
        if counted is None and norms is None:
            return [(part.stop - part.start) / len(targets) for part in parts]
        of = torch.ones_like(targets, dtype=torch.float64) if norms is None else norms.double()
        of = of if counted is None else of * counted
        sums = [float(of[part].sum()) for part in parts]
        return [each / sum(sums) if each else 0.0 for each in sums]

    def rows(self, z: Tensor) -> int:
        z = self.moved(z)
        return max(1, z.numel() // max(1, z.shape[-1]))

    def sampled_root(self, z: Tensor, y: Any, generator: torch.Generator) -> Tensor:
        moved, targets, scale = self._scales(z, y)
        return self._back(scale * self.sampled_roots(moved, targets, generator))

    def exact_root(self, z: Tensor, y: Any) -> Iterator[Tensor]:
        moved, targets, scale = self._scales(z, y)
        for root in self.exact_roots(moved, targets):
            yield self._back(scale * root)

    def moved(self, t: Tensor) -> Tensor:
        """Return outputs with the K of a position along their last axis."""
        return t if self.channel_axis == -1 else t.movedim(self.channel_axis, -1)

    def _back(self, t: Tensor) -> Tensor:
        return t if self.channel_axis == -1 else t.movedim(-1, self.channel_axis)

    def _scales(self, z: Tensor, y: Any) -> tuple[Tensor, Tensor, Tensor]:
        targets, weights = self._split(y)
        z = self.moved(z.detach())
        targets = self.target(z, targets)
        factors = self._factors(z[..., 0], targets, weights)
        return z, targets, factors.expand(z.shape[:-1]).sqrt().unsqueeze(-1)

    def _split(self, y: Any) -> tuple[Tensor, Tensor | None]:
        if not self.sample_weights:
            return y, None
        if not isinstance(y, tuple | list) or len(y) != 2:
            raise CurvatureError(
                f"{self.name} with sample_weights takes a pair as target: targets, and a weight "
                "for each sample"
            )
        targets, weights = y
        if weights.shape != targets.shape[:1]:
            raise CurvatureError(
                f"{len(targets)} samples need weights of shape ({len(targets)},), not "
                f"{tuple(weights.shape)}"
            )
        return targets, weights

    def _factors(self, losses: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return cᵢ sᵢ / Σ cⱼ nⱼ, which broadcasts to the losses."""
        counted, norms = self.counted(targets), self.norms(targets)
        factors = losses.new_ones(losses.shape)
        total: Tensor | float = float(max(1, losses.numel()))
        if norms is not None:
            norms = norms.to(losses.dtype)
            total = (norms if counted is None else norms * counted).sum()
        elif counted is not None:
            total = counted.sum().to(losses.dtype)
        if counted is not None:
            factors = factors * counted
        if weights is not None:
            factors = factors * _spread(weights.to(losses.dtype), losses)
        return factors / total


def _spread(weights: Tensor, losses: Tensor) -> Tensor:
    return weights.to(losses.device).reshape(-1, *(1,) * (losses.ndim - 1))
