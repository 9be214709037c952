"""SPlus (Frans et al. 2025), by the library ``pytorch-optimizer``.

Steps are signs in the eigenbasis of Shampoo's factors; the result is an average of the weights.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from mlhf.core.optional import from_extra
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.averaged import AveragedFirstOrder
from mlhf.optimizers.first_order.first_order import trained
from mlhf.optimizers.params import SPlusParams

_GROUP_STATE = ("step",)


def build(model: nn.Module, loss: Loss, params: SPlusParams, seed: int) -> AveragedFirstOrder:
    """Return ``splus`` of the registry: matrices in their bases, the rest by plain signs."""
    inner = _class()(
        trained(model),
        lr=params.lr,
        betas=(params.beta1, params.beta2),
        weight_decay=params.weight_decay,
        ema_rate=params.average_decay,
        inverse_steps=params.precondition_every,
        max_dim=params.max_dimension,
    )
    return AveragedFirstOrder(model, loss, inner, _GROUP_STATE, params.max_skipped_steps)


@cache
def _class() -> Callable[..., Any]:
    with from_extra("peers"):
        from pytorch_optimizer import SPlus  # here: importing it takes half a second

    class Contiguous(SPlus):
        """The library's, with contiguous bases, as a checkpoint restores them.

        Products depend on the memory layout to the last bit.
        """

        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            for state in self.state.values():
                bases = state.get("q_sides", [])
                bases[:] = [q if q is None else q.contiguous() for q in bases]
            return result

    return Contiguous
