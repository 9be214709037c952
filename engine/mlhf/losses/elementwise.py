"""Losses that add up over the outputs of a position: each output has a target to itself."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.weighted_loss import WeightedLoss


class Elementwise(WeightedLoss):
    """The mean over K outputs of a function of output and target; H is diagonal."""

    @abstractmethod
    def values(self, z: Tensor, y: Tensor) -> Tensor:
        """Return f(z, y), element by element."""

    @abstractmethod
    def slopes(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ∂f/∂z and ∂²f/∂z² ≥ 0, element by element."""

    def target(self, z: Tensor, y: Tensor) -> Tensor:
        y = self.moved(y)
        if y.shape != z.shape:
            raise CurvatureError(
                f"{self.name} needs targets shaped like the output; got {tuple(z.shape)}, "
                f"{tuple(y.shape)} (outputs of a position last)"
            )
        return y.to(z.dtype)

    def losses(self, z: Tensor, y: Tensor) -> Tensor:
        return self.values(z, y).mean(-1)

    def derivatives(self, z: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        first, second = self.slopes(z, y)
        second = second / z.shape[-1]
        return first / z.shape[-1], lambda u: second * u

    def sampled_roots(self, z: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        _, second = self.slopes(z, y)
        draw = torch.randn(z.shape, generator=generator).to(z)
        return draw * (second / z.shape[-1]).sqrt()

    def exact_roots(self, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        root = (self.slopes(z, y)[1] / z.shape[-1]).sqrt()
        eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        for c in range(z.shape[-1]):
            yield root * eye[c]


class SquaredError(Elementwise):
    """(z − y)²."""

    name = "mse"

    def values(self, z: Tensor, y: Tensor) -> Tensor:
        return (z - y).square()

    def slopes(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * (z - y), torch.full_like(z, 2.0)


class BinaryCrossEntropy(Elementwise):
    """Cross-entropy of sigmoid(z) and y from 0 to 1, as ``torch.nn.BCEWithLogitsLoss``.

    Args:
        positive_weights: For each of the K labels, the factor of its positives' loss.
        two_classes: y are classes 0 and 1 (…), and z has one logit a position.
        channel_axis: As for ``WeightedLoss``.
        sample_weights: As for ``WeightedLoss``.

    Raises:
        ValueError: a weight is not positive.
    """

    name = "binary_cross_entropy"

    def __init__(
        self,
        positive_weights: Sequence[float] | None = None,
        *,
        two_classes: bool = False,
        channel_axis: int = -1,
        sample_weights: bool = False,
    ) -> None:
        super().__init__(channel_axis=channel_axis, sample_weights=sample_weights)
        self.two_classes = two_classes
        self._weights: Tensor | None = None
        if positive_weights is not None:
            if not all(math.isfinite(w) and w > 0 for w in positive_weights):
                raise ValueError("positive_weights should be a number above 0 for each label")
            self._weights = torch.tensor(positive_weights, dtype=torch.float64)

    def target(self, z: Tensor, y: Tensor) -> Tensor:
        if self._weights is not None and len(self._weights) != z.shape[-1]:
            raise CurvatureError(
                f"{len(self._weights)} positive_weights, but the output has {z.shape[-1]} labels"
            )
        if self.two_classes:
            y = y.unsqueeze(self.channel_axis)
        return super().target(z, y)

    def values(self, z: Tensor, y: Tensor) -> Tensor:
        weights = None if self._weights is None else self._weights.to(z)
        return F.binary_cross_entropy_with_logits(z, y, reduction="none", pos_weight=weights)

    def slopes(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        p, q = torch.sigmoid(z), torch.sigmoid(-z)  # 1 − p, which does not cancel
        positive = y if self._weights is None else y * self._weights.to(z)
        return (1 - y) * p - positive * q, (1 - y + positive) * p * q


class Huber(Elementwise):
    """½(z − y)² up to |z − y| = δ, and linear beyond, as ``torch.nn.HuberLoss``.

    Args:
        delta: δ > 0.
        channel_axis: As for ``WeightedLoss``.
        sample_weights: As for ``WeightedLoss``.

    Raises:
        ValueError: δ is not positive.
    """

    name = "huber"

    def __init__(
        self, delta: float = 1.0, *, channel_axis: int = -1, sample_weights: bool = False
    ) -> None:
        super().__init__(channel_axis=channel_axis, sample_weights=sample_weights)
        if not (math.isfinite(delta) and delta > 0):
            raise ValueError(f"delta={delta} should be above 0")
        self.delta = delta

    def values(self, z: Tensor, y: Tensor) -> Tensor:
        return F.huber_loss(z, y, reduction="none", delta=self.delta)

    def slopes(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        error = z - y
        return error.clamp(-self.delta, self.delta), (error.abs() <= self.delta).to(z.dtype)


class Poisson(Elementwise):
    """eᶻ − yz for counts y ≥ 0: z is the logarithm of the rate (``torch.nn.PoissonNLLLoss``)."""

    name = "poisson"

    def values(self, z: Tensor, y: Tensor) -> Tensor:
        return z.exp() - y * z

    def slopes(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rate = z.exp()
        return rate - y, rate

    def target(self, z: Tensor, y: Tensor) -> Tensor:
        y = super().target(z, y)
        if y.device.type == "cpu" and bool((y < 0).any()):
            raise CurvatureError(
                f"poisson needs counts of 0 and more as targets; the least is {float(y.min()):g}"
            )
        return y


class Quantile(Elementwise):
    """The quantile (pinball) loss, smoothed so that it has a curvature.

    For u = y − z it is q·u + κ·softplus(−u/κ) (Zheng 2011, "Gradient descent algorithms for
    quantile regression with smooth approximation"), at most κ log 2 above max(qu, (q − 1)u).

    Args:
        quantiles: Each between 0 and 1. A target has an output for each of them, side by side.
        smoothing: κ > 0, in the targets' units.
        channel_axis: As for ``WeightedLoss``.
        sample_weights: As for ``WeightedLoss``.

    Raises:
        ValueError: an option is out of range.
    """

    name = "quantile"

    def __init__(
        self,
        quantiles: Sequence[float] = (0.5,),
        smoothing: float = 0.05,
        *,
        channel_axis: int = -1,
        sample_weights: bool = False,
    ) -> None:
        super().__init__(channel_axis=channel_axis, sample_weights=sample_weights)
        if not quantiles or not all(0 < q < 1 for q in quantiles):
            raise ValueError(f"quantiles={list(quantiles)} should lie between 0 and 1")
        if not (math.isfinite(smoothing) and smoothing > 0):
            raise ValueError(f"smoothing={smoothing} should be above 0")
        self.quantiles, self.smoothing = tuple(quantiles), smoothing

    def target(self, z: Tensor, y: Tensor) -> Tensor:
        y = self.moved(y)
        count = len(self.quantiles)
        if z.shape != (*y.shape[:-1], y.shape[-1] * count):
            raise CurvatureError(
                f"quantile needs {count} outputs for each target; got {tuple(z.shape)}, "
                f"{tuple(y.shape)} (outputs of a position last)"
            )
        return y.to(z.dtype).repeat_interleave(count, -1)

    def values(self, z: Tensor, y: Tensor) -> Tensor:
        u = y - z
        return self._levels(z) * u + self.smoothing * F.softplus(-u / self.smoothing)

    def slopes(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        below, above = (torch.sigmoid(s * (z - y) / self.smoothing) for s in (1, -1))
        return below - self._levels(z), below * above / self.smoothing

    def _levels(self, z: Tensor) -> Tensor:
        return z.new_tensor(self.quantiles).repeat(z.shape[-1] // len(self.quantiles))
