"""PSGD with Kronecker factors (Li 2015, 2022), by the library ``pytorch-optimizer``.

Its Q is fitted, by gradient steps on a Lie group, so that QᵀQ whitens the gradient.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from mlhf.core.optional import from_extra
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.params import PsgdParams

_GROUP_STATE = ("step", "update_counter")
_BALANCE_EVERY = 100  # steps: the library does it at random, once in a hundred updates


def build(model: nn.Module, loss: Loss, params: PsgdParams, seed: int) -> FirstOrder:
    """Return PSGD with a triangular factor for each short dimension of a parameter."""
    inner = _class()(
        trained(model),
        lr=params.lr,
        momentum=params.momentum,
        weight_decay=params.weight_decay,
        max_size_triangular=params.max_dimension,
        balance_prob=0.0,
        precondition_dtype=None,  # each parameter's own, not float32 for all
    )
    return FirstOrder(
        model, loss, [inner], _GROUP_STATE, max_skipped_steps=params.max_skipped_steps
    )


@cache
def _class() -> Callable[..., torch.optim.Optimizer]:
    with from_extra("peers"):
        from pytorch_optimizer import Kron  # here: importing it takes half a second
        from pytorch_optimizer.optimizer.psgd import balance_q

    class Psgd(Kron):
        """The library's, which balances the factors' sizes by steps instead of at random.

        Its own generator is NumPy's, which no checkpoint of a run holds.
        """

        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            if self.param_groups[0]["step"] % _BALANCE_EVERY == 0:
                for state in self.state.values():
                    if len(state["Q"]) > 1:
                        balance_q(state["Q"])
            return result

    return Psgd
