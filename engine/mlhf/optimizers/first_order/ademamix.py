"""AdEMAMix (Pagliardini et al. 2024), by the library ``pytorch-optimizer``."""

from torch import nn

from mlhf.core.optional import from_extra
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.params import AdEMAMixParams

_GROUP_STATE = ("step",)


def build(model: nn.Module, loss: Loss, params: AdEMAMixParams, seed: int) -> FirstOrder:
    """Return AdamW with a second, slow running mean of the gradient."""
    with from_extra("peers"):
        from pytorch_optimizer import AdEMAMix  # here: importing it takes half a second

    inner = AdEMAMix(
        trained(model),
        lr=params.lr,
        betas=(params.beta1, params.beta2, params.beta3),
        weight_decay=params.weight_decay,
        weight_decouple=True,
        alpha=params.alpha,
        t_alpha_beta3=params.warmup_steps,
        eps=params.eps,
    )
    return FirstOrder(
        model, loss, [inner], _GROUP_STATE, max_skipped_steps=params.max_skipped_steps
    )
