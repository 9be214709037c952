"""SOAP (Vyas et al. 2024), by the library ``pytorch-optimizer``."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from mlhf.optimizers.first_order.first_order import Build, trained

# Its step count lies in the parameter groups.
KEPT = ("step",)


def soap(params: Any) -> Build:
    """Adam in the eigenbases of each parameter's Shampoo factors, one basis a side.

    The first step only sets the bases, as in the authors' own code.
    """
    return lambda model: [
        _class()(
            trained(model),
            lr=params.lr,
            betas=(params.beta1, params.beta2),
            weight_decay=params.weight_decay,
            precondition_frequency=params.precondition_every,
            max_precondition_dim=params.max_dimension,
            eps=params.eps,
        )
    ]


@cache
def _class() -> Callable[..., torch.optim.Optimizer]:
    from pytorch_optimizer import SOAP  # here, since it takes half a second

    class Soap(SOAP):
        """The library's, with bases laid out in rows, as a checkpoint gives them back.

        Products depend on the layout to the last bit.
        """

        @staticmethod
        def get_orthogonal_matrix(mat: Any) -> Any:
            return _in_rows(SOAP.get_orthogonal_matrix(mat))

        def get_orthogonal_matrix_qr(self, *args: Any, **options: Any) -> Any:
            return _in_rows(super().get_orthogonal_matrix_qr(*args, **options))

    return Soap


def _in_rows(bases: list[Any]) -> list[Any]:
    return [q.contiguous() if isinstance(q, torch.Tensor) else q for q in bases]
