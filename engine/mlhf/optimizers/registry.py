"""Optimizers by name. ``specs.py`` has the same names and the form of their parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.damping import AdamDamping, Damping, FixedDamping
from mlhf.optimizers.first_order import first_order
from mlhf.optimizers.first_order.first_order import FirstOrder
from mlhf.optimizers.first_order.muon import muon
from mlhf.optimizers.first_order.schedule_free import ScheduleFreeAdamW
from mlhf.optimizers.first_order.shampoo import shampoo
from mlhf.optimizers.first_order.soap import KEPT as SOAP_KEPT
from mlhf.optimizers.first_order.soap import soap
from mlhf.optimizers.hessian_free import HessianFree
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.l2l import L2L
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt
from mlhf.optimizers.mlhf.variants import MLHF
from mlhf.optimizers.params import RateParams
from mlhf.optimizers.protocol import Optimizer, Rated
from mlhf.optimizers.scheduled import scheduled
from mlhf.optimizers.specs import check_run, parse

# From the model, the loss, the parsed parameters and a seed.
Factory = Callable[[nn.Module, Loss, Any, int], Rated]


def _first_order(of: Callable[[Any], first_order.Build], kept: Sequence[str] = ()) -> Factory:
    return lambda model, loss, params, _: FirstOrder(model, loss, of(params), kept)


def _schedule_free(model: nn.Module, loss: Loss, params: Any, seed: int) -> Rated:
    return ScheduleFreeAdamW(model, loss, params)


def _kfac(model: nn.Module, loss: Loss, params: Any, seed: int) -> Rated:
    options = params.model_dump(exclude={"schedule"})
    return Kfac(model, loss, seed=seed, **options)


def _hessian_free(model: nn.Module, loss: Loss, damping: Damping, params: Any) -> Rated:
    return HessianFree(
        model,
        loss,
        damping,
        iterations=params.iterations,
        lr=params.lr,
        warm_start=params.warm_start,
        weight_decay=params.weight_decay,
        **_batched(params),
    )


def _batched(params: Any) -> dict[str, Any]:
    """Return how a batch is taken, without what is left at its default."""
    names = ("micro_batch", "curvature_batch")
    told = {n: getattr(params, n) for n in names if getattr(params, n) is not None}
    if params.autocast is not None:
        told["autocast"] = getattr(torch, params.autocast)
    return told


def _hf(model: nn.Module, loss: Loss, params: Any, seed: int) -> Rated:
    return _hessian_free(model, loss, FixedDamping(params.damping), params)


def _hf_lm(model: nn.Module, loss: Loss, params: Any, seed: int) -> Rated:
    damping = LevenbergMarquardt(
        damping=params.damping,
        decrease=params.decrease,
        increase=params.increase,
        bounds=(params.min_damping, params.max_damping),
    )
    return _hessian_free(model, loss, damping, params)


def _hf_adam(model: nn.Module, loss: Loss, params: Any, seed: int) -> Rated:
    damping = AdamDamping(
        damping=params.damping,
        growth_steps=params.growth_steps,
        growth_exponent=params.growth_exponent,
        beta2=params.beta2,
        eps=params.eps,
    )
    return _hessian_free(model, loss, damping, params)


def _meta_checkpoint(params: Any) -> str | None:
    return None if params.meta_checkpoint == "none" else str(params.meta_checkpoint)


def _mlhf(model: nn.Module, loss: Loss, params: Any, seed: int) -> Rated:
    own = {"average": params.average} if params.variant == "kronecker" else {}
    papers = {"compile": True} if params.compile else {}
    return MLHF(
        model,
        loss,
        _meta_checkpoint(params),
        params.variant,
        iterations=params.iterations,
        lr=params.lr,
        weight_decay=params.weight_decay,
        seed=seed,
        **own,
        **papers,
        **_batched(params),
    )


def _l2l(model: nn.Module, loss: Loss, params: Any, seed: int) -> Rated:
    learned = _meta_checkpoint(params)
    return L2L(model, loss, learned, lr=params.lr, weight_decay=params.weight_decay)


FACTORIES: dict[str, Factory] = {
    "sgd": _first_order(first_order.sgd),
    "momentum": _first_order(first_order.momentum),
    "nesterov": _first_order(first_order.nesterov),
    "rmsprop": _first_order(first_order.rmsprop),
    "adam": _first_order(first_order.adam),
    "adamw": _first_order(first_order.adamw),
    "schedule_free_adamw": _schedule_free,
    "muon": _first_order(muon),
    "shampoo": _first_order(shampoo),
    "soap": _first_order(soap, SOAP_KEPT),
    "kfac": _kfac,
    "hf": _hf,
    "hf_lm": _hf_lm,
    "hf_adam": _hf_adam,
    "mlhf": _mlhf,
    "l2l": _l2l,
}


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
        seed: Of what it draws itself.

    Raises:
        SpecError: for an unknown name, parameters that do not fit it, or a schedule that needs
            ``total_steps``.
    """
    checked = parse(name, params)
    check_run(checked, total_steps)
    inner = FACTORIES[name](model, loss, checked, seed)
    if not isinstance(checked, RateParams):
        return inner
    return scheduled(inner, checked.schedule, total_steps)
