"""The empirical Fisher matrix of a network's loss on one batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.protocol import Loss
from mlhf.curvature.sample_weights import part_weights
from mlhf.curvature.vectors import upcast


class EmpiricalFisher(GGN):
    """F = (1/N) Σᵢ gᵢgᵢᵀ with gᵢ = ∇θℓᵢ, the gradient of the loss of sample i.

    Samples are the rows of the outputs' first dimension, and the loss is the mean of the
    samples' losses. No gᵢ is ever formed. With cᵢ = ∂ℓᵢ/∂z, which is zero but in row i,
    gᵢ = Jᵀcᵢ, so

        Fv = Jᵀ w, where row i of w is cᵢ⟨cᵢ, Jv⟩/N.

    Where class weights or a mask make it a weighted mean Σ wᵢℓᵢ with Σ wᵢ = 1, F = Σ wᵢgᵢgᵢᵀ.
    The weights of a loss function are measured, by an evaluation for each sample. A product
    costs as much as a GGN product. In train mode batch norm makes zᵢ depend on the
    other samples; gᵢ is then the gradient through that dependence too.

    Arguments and attributes are those of ``GGN``; the loss need only be once differentiable.
    Not to be confused with the Fisher matrix, which for the named losses is the GGN (Kunstner,
    Balles & Hennig 2019, "Limitations of the empirical Fisher approximation").

    Raises:
        CurvatureError: as for ``GGN``, and by products where several outputs differ in their
            number of rows, or the loss is no mean over samples.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        x: Any,
        y: Any,
        parameters: Sequence[Tensor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, loss, x, y, parameters, **options)
        self._loss, self._target = loss, y
        self._inverse_weights: float | Tensor | None = None  # 1/wᵢ

    def _apply_output_hessian(self, u: list[Tensor]) -> list[Tensor]:
        g = [upcast(t) for t in self._at.gradient]  # row i is cᵢ/N
        samples = {t.shape[0] if t.ndim else 1 for t in g}
        if len(samples) > 1:
            raise CurvatureError("an empirical Fisher matrix needs outputs of equally many rows")
        (n,) = samples
        along = sum(
            ((a * b).reshape(n, -1).sum(1) for a, b in zip(g[1:], u[1:], strict=True)),
            (g[0] * u[0]).reshape(n, -1).sum(1),
        )
        assert isinstance(along, torch.Tensor)
        if self._inverse_weights is None:
            self._inverse_weights = self._find_weights(n)
        scale = self._inverse_weights * along
        rows = [t * scale.reshape(n, *(1,) * (t.ndim - 1)) for t in g]
        return [row.to(t.dtype) for row, t in zip(rows, u, strict=True)]

    def _find_weights(self, n: int) -> float | Tensor:
        if n == 1:
            return 1
        parts = [slice(i, i + 1) for i in range(n)]
        weights = part_weights(self._loss, self.output, self._target, parts)
        if all(w == 1 / n for w in weights):
            return n
        total = sum(weights)
        if abs(total - 1) > 1e-3:
            raise CurvatureError(
                "an empirical Fisher matrix needs a loss that is a mean over samples, not a sum"
            )
        found = torch.tensor([1 / w if w else 0.0 for w in weights])
        return found.to(self._at.gradient[0].device)
