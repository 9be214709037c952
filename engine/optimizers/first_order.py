"""First-order optimizers: torch's own, behind our protocol."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from engine.curvature.losses import plain
from engine.optimizers.protocol import State, StepResult

Build = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Loss = str | Callable[[Tensor, Tensor], Tensor]


class FirstOrder:
    """One gradient a step, handed to a ``torch.optim`` optimizer.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        build: Makes the torch optimizer of the model's parameters.
    """

    def __init__(self, model: nn.Module, loss: Loss, build: Build) -> None:
        self.model = model
        self._loss = plain(loss)
        self._inner = build([p for p in model.parameters() if p.requires_grad])

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        self._inner.zero_grad(set_to_none=True)
        loss = self._loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._inner.step()
        return StepResult(loss.detach())

    def state_dict(self) -> State:
        state = self._inner.state_dict()["state"]
        return {"state": {str(index): dict(entry) for index, entry in state.items()}}

    def load_state_dict(self, state: State) -> None:
        # Hyperparameters come from the specification, not from the checkpoint.
        groups = self._inner.state_dict()["param_groups"]
        entries = {int(index): entry for index, entry in state["state"].items()}
        self._inner.load_state_dict({"state": entries, "param_groups": groups})


def sgd(params: Any) -> Build:
    return lambda parameters: torch.optim.SGD(
        parameters, lr=params.lr, weight_decay=params.weight_decay, fused=_fused(parameters)
    )


def momentum(params: Any, nesterov: bool = False) -> Build:
    return lambda parameters: torch.optim.SGD(
        parameters,
        lr=params.lr,
        momentum=params.momentum,
        nesterov=nesterov and params.momentum > 0,
        weight_decay=params.weight_decay,
        fused=_fused(parameters),
    )


def nesterov(params: Any) -> Build:
    return momentum(params, nesterov=True)


def rmsprop(params: Any) -> Build:
    return lambda parameters: torch.optim.RMSprop(
        parameters,
        lr=params.lr,
        alpha=params.alpha,
        eps=params.eps,
        momentum=params.momentum,
        weight_decay=params.weight_decay,
    )


def adam(params: Any) -> Build:
    return lambda parameters: torch.optim.Adam(parameters, **_adam(params, parameters))


def adamw(params: Any) -> Build:
    return lambda parameters: torch.optim.AdamW(parameters, **_adam(params, parameters))


def _adam(params: Any, parameters: list[nn.Parameter]) -> dict[str, Any]:
    return {
        "lr": params.lr,
        "betas": (params.beta1, params.beta2),
        "eps": params.eps,
        "weight_decay": params.weight_decay,
        "fused": _fused(parameters),
    }


def _fused(parameters: list[nn.Parameter]) -> bool:
    """One pass over memory instead of several, where torch has such a kernel."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
