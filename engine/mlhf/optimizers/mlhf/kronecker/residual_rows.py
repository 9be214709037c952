"""Rows of the Gauss-Newton matrix's root at some of a batch's residuals.

A residual that differentiates its network uses each weight twice: in the network, and in its
derivative. The inputs and gradients of a layer's calls then miss a part, and under ``vmap``
there is nothing to record. Whole rows of the Jacobian miss nothing, and some are enough.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.jacobian.chunks import Unsuitable
from mlhf.curvature.jacobian.functional import FunctionalJacobian
from mlhf.curvature.loss_roots import loss_root
from mlhf.curvature.protocol import Loss
from mlhf.curvature.residuals import Residuals

POINTS = 256  # of a batch, at most
_FEWEST = 8
_NUMBERS = 1 << 24  # of all rows, above the fewest
_FAILURES = (Unsuitable, RuntimeError, NotImplementedError)


class ResidualRows:
    """Computes rows R for which RᵀR is, in the mean over draws, the batch's Gauss-Newton matrix.

    Args:
        model: The residuals.
        parameters: θ.
    """

    def __init__(self, model: Residuals, parameters: Sequence[Tensor]) -> None:
        self._model, self._parameters = model, list(parameters)

    def draw(self, loss: Loss, x: Any, generator: torch.Generator) -> list[Tensor] | None:
        """Return R at points drawn from x, a tensor (rows, …) like each parameter.

        None where ``torch.func`` has no rule for what the residuals call.

        Args:
            loss: ℓ, of the residuals alone.
            x: The batch.
            generator: On the CPU.
        """
        size = sum(p.numel() for p in self._parameters)
        most = min(POINTS, max(_FEWEST, _NUMBERS // size))
        points = self._model.some_points(x, most, generator)
        jacobian = FunctionalJacobian(self._model, self._parameters)
        try:
            root = loss_root(loss, jacobian.forward(points), None)
            if root is None:
                return None
            chunks = jacobian.chunks(root.root, root.residual.numel())
            rows = torch.cat([chunk.rows().dense() for chunk in chunks])
        except _FAILURES as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return None
        finally:
            jacobian.clear()
        sizes = [p.numel() for p in self._parameters]
        pieces = torch.split(rows, sizes, 1)
        return [t.reshape(len(t), *p.shape) for t, p in zip(pieces, self._parameters, strict=True)]
