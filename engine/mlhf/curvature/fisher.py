"""The empirical Fisher matrix of a network's loss on one batch."""

import torch
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.pytree_loss import upcast


class EmpiricalFisher(GGN):
    """F = (1/N) Σᵢ gᵢgᵢᵀ with gᵢ = ∇θℓᵢ, the gradient of the loss of sample i.

    Samples are the rows of the outputs' first dimension, and the loss must be the mean of
    the samples' losses. No gᵢ is ever formed. With cᵢ = ∂ℓᵢ/∂z, which is zero but in row i,
    gᵢ = Jᵀcᵢ, so

        Fv = Jᵀ w, where row i of w is cᵢ⟨cᵢ, Jv⟩/N,

    which costs as much as a GGN product. In train mode batch norm makes zᵢ depend on the
    other samples; gᵢ is then the gradient through that dependence too.

    Arguments and attributes are those of ``GGN``; the loss need only be once differentiable.
    Not to be confused with the Fisher matrix, which for the named losses is the GGN (Kunstner,
    Balles & Hennig 2019, "Limitations of the empirical Fisher approximation").

    Raises:
        CurvatureError: as for ``GGN``, and by products where several outputs differ in their
            number of rows.
    """

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
        rows = [t * (n * along).reshape(n, *(1,) * (t.ndim - 1)) for t in g]
        return [row.to(t.dtype) for row, t in zip(rows, u, strict=True)]
