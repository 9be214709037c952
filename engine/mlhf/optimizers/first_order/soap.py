"""SOAP (Vyas et al. 2024), by the library ``pytorch-optimizer``."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from mlhf.core.optional import from_extra
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.params import SoapParams

_GROUP_STATE = ("step",)


def build(model: nn.Module, loss: Loss, params: SoapParams, seed: int) -> FirstOrder:
    """Return Adam in the eigenbases of each parameter's Shampoo factors, one basis a dimension.

    The first step only initialises the bases, as in the authors' code.
    """
    inner = _class()(
        trained(model),
        lr=params.lr,
        betas=(params.beta1, params.beta2),
        weight_decay=params.weight_decay,
        precondition_frequency=params.precondition_every,
        max_precondition_dim=params.max_dimension,
        eps=params.eps,
    )
    return FirstOrder(
        model, loss, [inner], _GROUP_STATE, max_skipped_steps=params.max_skipped_steps
    )


@cache
def _class() -> Callable[..., torch.optim.Optimizer]:
    with from_extra("peers"):
        from pytorch_optimizer import SOAP  # here: importing it takes half a second

    class Soap(SOAP):
        """The library's, with contiguous bases, as a checkpoint restores them.

        Products depend on the memory layout to the last bit.
        """

        @staticmethod
        def get_orthogonal_matrix(mat: Any) -> Any:
            return _contiguous(SOAP.get_orthogonal_matrix(mat))

        def get_orthogonal_matrix_qr(self, *args: Any, **options: Any) -> Any:
            return _contiguous(super().get_orthogonal_matrix_qr(*args, **options))

    return Soap


def _contiguous(bases: list[Any]) -> list[Any]:
    return [q.contiguous() if isinstance(q, torch.Tensor) else q for q in bases]
