"""First-order optimizers: those of ``torch.optim``, and others with its interface."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.losses import autograd_loss
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.params import (
    AdamParams,
    AdamWParams,
    MomentumParams,
    MuonParams,
    RMSpropParams,
    SGDParams,
)
from mlhf.optimizers.protocol import State, StepResult


class FirstOrder:
    """One gradient a step, handed to ``torch.optim`` optimizers.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        inner: Torch optimizers of the model's parameters, at the same learning rate; each
            parameter belongs to one of them.
        group_state: Entries of their parameter groups that are state (such as step counts),
            not hyperparameters.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        inner: Sequence[torch.optim.Optimizer],
        group_state: Sequence[str] = (),
    ) -> None:
        self.model = model
        self._loss = autograd_loss(loss)
        self._inner = list(inner)
        self._group_state = group_state

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self._inner[0].param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for inner in self._inner:
            for group in inner.param_groups:
                group["lr"] = value

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = self._loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        for inner in self._inner:
            inner.step()
        return StepResult(loss.detach())

    def state_dict(self) -> State:
        return {"inner": [self._saved(inner) for inner in self._inner]}

    def load_state_dict(self, state: State) -> None:
        for inner, saved in zip(self._inner, state["inner"], strict=True):
            # Hyperparameters come from the specification, not from the checkpoint.
            groups = inner.state_dict()["param_groups"]
            for group, group_state in zip(groups, saved["groups"], strict=True):
                group.update(group_state)
            entries = {int(index): entry for index, entry in saved["state"].items()}
            inner.load_state_dict({"state": entries, "param_groups": groups})

    def _saved(self, inner: torch.optim.Optimizer) -> State:
        state = inner.state_dict()
        return {
            "state": {str(index): dict(entry) for index, entry in state["state"].items()},
            "groups": [
                {name: group[name] for name in self._group_state if name in group}
                for group in state["param_groups"]
            ],
        }


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the model's parameters that require a gradient, each once."""
    return [p for p in model.parameters() if p.requires_grad]


def sgd(model: nn.Module, loss: Loss, params: SGDParams, seed: int) -> FirstOrder:
    """Return ``sgd`` of the registry."""
    return FirstOrder(model, loss, [_sgd(model, params)])


def momentum(model: nn.Module, loss: Loss, params: MomentumParams, seed: int) -> FirstOrder:
    """Return ``momentum`` of the registry."""
    return FirstOrder(model, loss, [_sgd(model, params, momentum=params.momentum)])


def nesterov(model: nn.Module, loss: Loss, params: MomentumParams, seed: int) -> FirstOrder:
    """Return ``nesterov`` of the registry."""
    is_nesterov = params.momentum > 0  # torch refuses Nesterov's without momentum
    inner = _sgd(model, params, momentum=params.momentum, nesterov=is_nesterov)
    return FirstOrder(model, loss, [inner])


def rmsprop(model: nn.Module, loss: Loss, params: RMSpropParams, seed: int) -> FirstOrder:
    """Return ``rmsprop`` of the registry."""
    inner = torch.optim.RMSprop(
        trained(model),
        lr=params.lr,
        alpha=params.alpha,
        eps=params.eps,
        momentum=params.momentum,
        weight_decay=params.weight_decay,
    )
    return FirstOrder(model, loss, [inner])


def adam(model: nn.Module, loss: Loss, params: AdamParams, seed: int) -> FirstOrder:
    """Return ``adam`` of the registry."""
    inner = torch.optim.Adam(trained(model), **adam_options(params, trained(model)))
    return FirstOrder(model, loss, [inner])


def adamw(model: nn.Module, loss: Loss, params: AdamWParams, seed: int) -> FirstOrder:
    """Return ``adamw`` of the registry."""
    inner = torch.optim.AdamW(trained(model), **adam_options(params, trained(model)))
    return FirstOrder(model, loss, [inner])


def adam_options(params: AdamParams | MuonParams, parameters: list[nn.Parameter]) -> dict[str, Any]:
    """Return the arguments of ``torch.optim.Adam`` or ``AdamW``."""
    return {
        "lr": params.lr,
        "betas": (params.beta1, params.beta2),
        "eps": params.eps,
        "weight_decay": params.weight_decay,
        "fused": _can_fuse(parameters),
    }


def _sgd(
    model: nn.Module, params: SGDParams, momentum: float = 0.0, nesterov: bool = False
) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        trained(model),
        lr=params.lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=params.weight_decay,
        fused=_can_fuse(trained(model)),
    )


def _can_fuse(parameters: list[nn.Parameter]) -> bool:
    """Whether torch has a fused kernel, of one pass over memory instead of several."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
