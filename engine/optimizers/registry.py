"""Optimizers by name. ``specs.py`` has the same names and the form of their parameters."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from engine.curvature.ggn import Loss
from engine.optimizers import first_order
from engine.optimizers.damping import AdamDamping, FixedDamping
from engine.optimizers.first_order import FirstOrder
from engine.optimizers.hessian_free import HessianFree
from engine.optimizers.protocol import Optimizer
from engine.optimizers.specs import parse

Factory = Callable[[nn.Module, Loss, Any], Optimizer]


def _first_order(of: Callable[[Any], first_order.Build]) -> Factory:
    return lambda model, loss, params: FirstOrder(model, loss, of(params))


def _hf(model: nn.Module, loss: Loss, params: Any) -> Optimizer:
    return HessianFree(
        model,
        loss,
        FixedDamping(params.damping),
        iterations=params.iterations,
        lr=params.lr,
        warm_start=params.warm_start,
        weight_decay=params.weight_decay,
    )


def _hf_adam(model: nn.Module, loss: Loss, params: Any) -> Optimizer:
    damping = AdamDamping(
        damping=params.damping,
        growth_steps=params.growth_steps,
        growth_exponent=params.growth_exponent,
        beta2=params.beta2,
        eps=params.eps,
    )
    return HessianFree(
        model,
        loss,
        damping,
        iterations=params.iterations,
        lr=params.lr,
        warm_start=params.warm_start,
        weight_decay=params.weight_decay,
    )


FACTORIES: dict[str, Factory] = {
    "sgd": _first_order(first_order.sgd),
    "momentum": _first_order(first_order.momentum),
    "nesterov": _first_order(first_order.nesterov),
    "rmsprop": _first_order(first_order.rmsprop),
    "adam": _first_order(first_order.adam),
    "adamw": _first_order(first_order.adamw),
    "hf": _hf,
    "hf_adam": _hf_adam,
}


def build(
    name: str, params: Mapping[str, Any], model: nn.Module, loss: Loss = "cross_entropy"
) -> Optimizer:
    """Return the named optimizer for a model.

    Raises:
        SpecError: for an unknown name or parameters that do not fit it.
    """
    checked = parse(name, params)
    return FACTORIES[name](model, loss, checked)
