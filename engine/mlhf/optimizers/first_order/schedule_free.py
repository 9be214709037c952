"""Schedule-Free AdamW (Defazio et al. 2024), by its authors' library ``schedulefree``.

It takes gradients between the steps and their average; the average is the result.
"""

from torch import nn

from mlhf.core.optional import from_extra
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.averaged import AveragedFirstOrder
from mlhf.optimizers.first_order.first_order import trained
from mlhf.optimizers.params import ScheduleFreeParams

_GROUP_STATE = ("k", "weight_sum", "lr_max")


def build(
    model: nn.Module, loss: Loss, params: ScheduleFreeParams, seed: int
) -> AveragedFirstOrder:
    """Return ``schedule_free_adamw`` of the registry."""
    with from_extra("peers"):
        from schedulefree import AdamWScheduleFree

    inner = AdamWScheduleFree(
        trained(model),
        lr=params.lr,
        betas=(params.beta1, params.beta2),
        eps=params.eps,
        weight_decay=params.weight_decay,
    )
    return AveragedFirstOrder(model, loss, inner, _GROUP_STATE, params.max_skipped_steps)
