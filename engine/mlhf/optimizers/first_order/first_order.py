"""First-order optimizers: torch's own and others of its form, behind our protocol."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.losses import autograd_loss
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.protocol import State, StepResult

Build = Callable[[nn.Module], Sequence[torch.optim.Optimizer]]


class FirstOrder:
    """One gradient a step, handed to ``torch.optim`` optimizers.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        build: Makes the torch optimizers of the model's parameters; each parameter belongs to
            one of them. All are at the same learning rate.
        kept: Entries of their parameter groups that are state (numbers they count in), not
            hyperparameters.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, build: Build, kept: Sequence[str] = ()
    ) -> None:
        self.model = model
        self._loss = autograd_loss(loss)
        self._inners = build(model)
        self._kept = kept

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self._inners[0].param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for inner in self._inners:
            for group in inner.param_groups:
                group["lr"] = value

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = self._loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        for inner in self._inners:
            inner.step()
        return StepResult(loss.detach())

    def state_dict(self) -> State:
        return {"inner": [self._saved(inner) for inner in self._inners]}

    def load_state_dict(self, state: State) -> None:
        for inner, saved in zip(self._inners, state["inner"], strict=True):
            # Hyperparameters come from the specification, not from the checkpoint.
            groups = inner.state_dict()["param_groups"]
            for group, kept in zip(groups, saved["groups"], strict=True):
                group.update(kept)
            entries = {int(index): entry for index, entry in saved["state"].items()}
            inner.load_state_dict({"state": entries, "param_groups": groups})

    def _saved(self, inner: torch.optim.Optimizer) -> State:
        state = inner.state_dict()
        return {
            "state": {str(index): dict(entry) for index, entry in state["state"].items()},
            "groups": [
                {name: group[name] for name in self._kept if name in group}
                for group in state["param_groups"]
            ],
        }


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the model's parameters that require a gradient, each once."""
    return [p for p in model.parameters() if p.requires_grad]


def sgd(params: Any) -> Build:
    return lambda model: [
        torch.optim.SGD(
            trained(model),
            lr=params.lr,
            weight_decay=params.weight_decay,
            fused=fused(trained(model)),
        )
    ]


def momentum(params: Any, nesterov: bool = False) -> Build:
    return lambda model: [
        torch.optim.SGD(
            trained(model),
            lr=params.lr,
            momentum=params.momentum,
            nesterov=nesterov and params.momentum > 0,
            weight_decay=params.weight_decay,
            fused=fused(trained(model)),
        )
    ]


def nesterov(params: Any) -> Build:
    return momentum(params, nesterov=True)


def rmsprop(params: Any) -> Build:
    return lambda model: [
        torch.optim.RMSprop(
            trained(model),
            lr=params.lr,
            alpha=params.alpha,
            eps=params.eps,
            momentum=params.momentum,
            weight_decay=params.weight_decay,
        )
    ]


def adam(params: Any) -> Build:
    return lambda model: [torch.optim.Adam(trained(model), **_adam(params, trained(model)))]


def adamw(params: Any) -> Build:
    return lambda model: [torch.optim.AdamW(trained(model), **_adam(params, trained(model)))]


def _adam(params: Any, parameters: list[nn.Parameter]) -> dict[str, Any]:
    return {
        "lr": params.lr,
        "betas": (params.beta1, params.beta2),
        "eps": params.eps,
        "weight_decay": params.weight_decay,
        "fused": fused(parameters),
    }


def fused(parameters: list[nn.Parameter]) -> bool:
    """One pass over memory instead of several, where torch has such a kernel."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
