"""Builds optimizers by name; ``specs.py`` lists them."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.params import RateParams
from mlhf.optimizers.protocol import Optimizer
from mlhf.optimizers.scheduled import scheduled
from mlhf.optimizers.specs import OPTIMIZERS, check_run


def build(
    name: str,
    params: Mapping[str, Any],
    model: nn.Module,
    loss: Loss = "cross_entropy",
    *,
    total_steps: int | None = None,
    seed: int = 0,
) -> Optimizer:
    """Return the named optimizer for a model, its learning rate under its schedule.

    Args:
        name: A registered name.
        params: Its parameters, as JSON values.
        model: The model it trains, on its device.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        total_steps: How many steps there will be, for schedules.
        seed: Of the random numbers that the optimizer itself draws.

    Raises:
        SpecError: for an unknown name, parameters that do not fit it, or a schedule that needs
            ``total_steps``.
    """
    checked = OPTIMIZERS.parse(name, params)
    check_run(checked, total_steps)
    optimizer = OPTIMIZERS[name].load()(model, loss, checked, seed)
    if not isinstance(checked, RateParams):
        return optimizer
    return scheduled(optimizer, checked.schedule, total_steps)
