"""Softmax cross-entropy with label smoothing, class weights and classes that are ignored."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.losses import IGNORED
from mlhf.curvature.weighted_loss import WeightedLoss


class CrossEntropy(WeightedLoss):
    """Softmax cross-entropy, as ``torch.nn.CrossEntropyLoss`` has it.

    With q = (1 − ε)·one-hot + ε/C and class weights w, ℓᵢ = −Σ_c w_c q_ic log p_ic, and the mean
    divides by the weights of the positions' classes. H = Σ_c w_c q_ic (diag p − ppᵀ).

    Args:
        label_smoothing: ε, from 0 to below 1.
        class_weights: One for each class, not negative.
        ignore_index: A class whose positions have no loss, beside −100.
        channel_axis: The axis of the classes: −1, or 1 for images.
        sample_weights: Whether y is a pair: classes, and the samples' weights (B,).

    Raises:
        ValueError: an option is out of range.
    """

    name = "cross_entropy"

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        *,
        channel_axis: int = -1,
        sample_weights: bool = False,
    ) -> None:
        super().__init__(channel_axis=channel_axis, sample_weights=sample_weights)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} should be from 0 to below 1")
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self._weights: Tensor | None = None
        if class_weights is not None:
            self._weights = torch.as_tensor(class_weights, dtype=torch.float64)
            fine = self._weights.ndim == 1 and bool((self._weights >= 0).all())
            if (
                not fine
                or not bool(self._weights.isfinite().all())
                or not bool(self._weights.any())
            ):
                raise ValueError("class_weights should be a number for each class, none negative")

    def target(self, z: Tensor, y: Tensor) -> Tensor:
        if y.shape != z.shape[:-1] or y.is_floating_point():
            raise CurvatureError(
                f"cross_entropy needs logits (…, classes) and integer classes (…); got "
                f"{tuple(z.shape)} (classes last) and {y.dtype} {tuple(y.shape)}"
            )
        if self._weights is not None and len(self._weights) != z.shape[-1]:
            raise CurvatureError(
                f"{len(self._weights)} class_weights, but the output has {z.shape[-1]} classes"
            )
        if z.device.type == "cpu" and y.numel():
            counted = y[self.counted(y)]
            if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < z.shape[-1]:
                raise CurvatureError(
                    f"labels run from {int(counted.min())} to {int(counted.max())}, but the output "
                    f"has {z.shape[-1]} classes, 0 to {z.shape[-1] - 1}. Labels of {IGNORED} are "
                    "ignored; ignore_index names another one"
                )
        return y

    def counted(self, y: Tensor) -> Tensor:
        counted = y != IGNORED
        return counted if self.ignore_index is None else counted & (y != self.ignore_index)

    def norms(self, y: Tensor) -> Tensor | None:
        if self._weights is None:
            return None
        return self._weights.to(y.device)[self._index(y)]

    def part_weights(self, y: Any, parts: Sequence[slice]) -> list[float] | None:
        found = super().part_weights(y, parts)
        if self.label_smoothing and self._weights is not None and not bool(self._weights.all()):
            targets, _ = self._split(y)
            counted = self.counted(targets)
            if any(
                bool(counted[p].any()) and not w for p, w in zip(parts, found or (), strict=True)
            ):
                raise CurvatureError(
                    "a microbatch has classes of weight 0 only, whose smoothed labels still count: "
                    "leave out micro_batch and curvature_batch, or label_smoothing"
                )
        return found

    def losses(self, z: Tensor, y: Tensor) -> Tensor:
        log_p = F.log_softmax(z, -1)
        index = self._index(y).unsqueeze(-1)
        smoothing = self.label_smoothing
        chosen = log_p.gather(-1, index).squeeze(-1)
        if self._weights is None:
            return -(1 - smoothing) * chosen - (smoothing * log_p.mean(-1) if smoothing else 0.0)
        weights = self._weights.to(z)
        losses = -(1 - smoothing) * weights[index.squeeze(-1)] * chosen
        return losses - (smoothing * (weights * log_p).mean(-1) if smoothing else 0.0)

    def derivatives(self, z: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        p = F.softmax(z, -1)
        wanted = self._wanted(z, y)
        scale = wanted.sum(-1, keepdim=True)
        scaled = scale * p

        def product(u: Tensor) -> Tensor:
            return scaled * (u - (p * u).sum(-1, keepdim=True))

        return scaled - wanted, product

    def sampled_roots(self, z: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        p = F.softmax(z, -1)
        draw = torch.rand(z.shape[:-1], generator=generator).to(z)
        labels = (p.cumsum(-1) < draw.unsqueeze(-1)).sum(-1).clamp_max(z.shape[-1] - 1)
        g = p - F.one_hot(labels, z.shape[-1]).to(p)
        return self._wanted(z, y).sum(-1, keepdim=True).sqrt() * g

    def exact_roots(self, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        p = F.softmax(z, -1)
        scale = self._wanted(z, y).sum(-1, keepdim=True).sqrt()
        eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        for c in range(z.shape[-1]):
            yield scale * p[..., c : c + 1].sqrt() * (p - eye[c])

    def _index(self, y: Tensor) -> Tensor:
        return torch.where(self.counted(y), y, 0).long()

    def _wanted(self, z: Tensor, y: Tensor) -> Tensor:
        """w∘q, (…, C)."""
        classes, smoothing = z.shape[-1], self.label_smoothing
        q = torch.full_like(z, smoothing / classes)
        index = self._index(y).unsqueeze(-1)
        q = q.scatter_add(-1, index, q.new_full(index.shape, 1 - smoothing))
        return q if self._weights is None else q * self._weights.to(z)
