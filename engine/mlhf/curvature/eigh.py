"""Eigenvalues and eigenvectors of symmetric matrices; NaN in place of an error."""

import torch
from torch import Tensor


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, from the smallest, and eigenvectors of symmetric matrices.

    ``torch.linalg.eigh`` raises where LAPACK does not converge: for many matrices that are not
    finite, and in float32 for some of a large range. The latter are decomposed in float64. The
    eigenvalues of what is left are NaN, and a step made of them is then seen not to be finite.

    Args:
        matrices: (…, n, n).

    Returns:
        Shapes (…, n) and (…, n, n).
    """
    try:
        values, vectors = torch.linalg.eigh(matrices)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if matrices.ndim > 2:
            each = [eigh(matrix) for matrix in matrices]
            return torch.stack([v for v, _ in each]), torch.stack([u for _, u in each])
        if matrices.dtype != torch.float64:
            values, vectors = eigh(matrices.double())
            return values.to(matrices), vectors.to(matrices)
        identity = torch.eye(matrices.shape[-1]).to(matrices)
        return torch.full_like(matrices[0], torch.nan), identity
    return values, vectors
