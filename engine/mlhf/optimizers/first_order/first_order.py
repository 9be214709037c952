"""First-order optimizers: those of ``torch.optim``, and others with its interface."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_pass import forget_casts
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
from mlhf.optimizers.state import check_state, copied, shapes_of, tensors_copied
from mlhf.optimizers.step_guard import NotFinite, StepGuard, all_finite, check, large_number, norm


class FirstOrder:
    """One gradient a step, handed to ``torch.optim`` optimizers.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        inner: Torch optimizers of the model's parameters, at the same learning rate; each
            parameter belongs to one of them.
        group_state: Entries of their parameter groups that are state (such as step counts),
            not hyperparameters.
        max_skipped_steps: As for ``StepGuard``.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        inner: Sequence[torch.optim.Optimizer],
        group_state: Sequence[str] = (),
        max_skipped_steps: int = 10,
    ) -> None:
        self.model = model
        self._parameters = trained(model)
        self._large = min(large_number(p.dtype) for p in self._parameters)
        self._guard = StepGuard(model, max_skipped_steps)
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

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        """Take one step on the batch (x, y)."""
        result = self._guard.run(self._step, x, y)
        forget_casts()
        return result

    def _step(self, x: Tensor, y: Tensor) -> StepResult:
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = self._loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        (size,) = check(loss, {"gradient": gradients})
        if size < self._large and not self._grows_by_decay():
            self._update()
        else:
            self._update_or_restore(loss)
        return StepResult(loss.detach())

    def _grows_by_decay(self) -> bool:
        """Whether weight decay overshoots 0 by more than it started from: |1 − lr·decay| > 1."""
        groups = [group for inner in self._inner for group in inner.param_groups]
        return any(group["lr"] * group.get("weight_decay", 0) > 2 for group in groups)

    def _update(self) -> None:
        for inner in self._inner:
            inner.step()

    @torch.no_grad()
    def _update_or_restore(self, loss: Tensor) -> None:
        """Update a copy of state and parameters, in effect: they are kept if all is finite."""
        parameters = [p.detach().clone() for p in self._parameters]
        states = [copy.deepcopy(inner.state_dict()) for inner in self._inner]
        try:
            self._update()
            kept = [inner.state_dict()["state"] for inner in self._inner]
            finite = math.isfinite(norm(self._parameters)) and all_finite(kept)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            finite = False  # no eigenvectors of a matrix with infinities
        if not finite:
            torch._foreach_copy_(tuple(self._parameters), parameters)
            for inner, state in zip(self._inner, states, strict=True):
                inner.load_state_dict(state)
            raise NotFinite("updated parameters", loss)

    @copied
    def state_dict(self) -> State:
        return {
            "inner": [self._saved(inner) for inner in self._inner],
            "shapes": shapes_of(self._parameters),
            "guard": self._guard.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        check_state(self, state, ("inner",), self._parameters, self.model)
        self._guard.load_state_dict(state.get("guard"))
        for inner, saved in zip(self._inner, state["inner"], strict=True):
            # Hyperparameters come from the specification, not from the checkpoint.
            groups = inner.state_dict()["param_groups"]
            for group, group_state in zip(groups, saved["groups"], strict=True):
                group.update(group_state)
            entries = {int(index): tensors_copied(entry) for index, entry in saved["state"].items()}
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
    return FirstOrder(
        model, loss, [_sgd(model, params)], max_skipped_steps=params.max_skipped_steps
    )


def momentum(model: nn.Module, loss: Loss, params: MomentumParams, seed: int) -> FirstOrder:
    """Return ``momentum`` of the registry."""
    return FirstOrder(
        model,
        loss,
        [_sgd(model, params, momentum=params.momentum)],
        max_skipped_steps=params.max_skipped_steps,
    )


def nesterov(model: nn.Module, loss: Loss, params: MomentumParams, seed: int) -> FirstOrder:
    """Return ``nesterov`` of the registry."""
    is_nesterov = params.momentum > 0  # torch refuses Nesterov's without momentum
    inner = _sgd(model, params, momentum=params.momentum, nesterov=is_nesterov)
    return FirstOrder(model, loss, [inner], max_skipped_steps=params.max_skipped_steps)


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
    return FirstOrder(model, loss, [inner], max_skipped_steps=params.max_skipped_steps)


def adam(model: nn.Module, loss: Loss, params: AdamParams, seed: int) -> FirstOrder:
    """Return ``adam`` of the registry."""
    inner = torch.optim.Adam(trained(model), **adam_options(params, trained(model)))
    return FirstOrder(model, loss, [inner], max_skipped_steps=params.max_skipped_steps)


def adamw(model: nn.Module, loss: Loss, params: AdamWParams, seed: int) -> FirstOrder:
    """Return ``adamw`` of the registry."""
    inner = torch.optim.AdamW(trained(model), **adam_options(params, trained(model)))
    return FirstOrder(model, loss, [inner], max_skipped_steps=params.max_skipped_steps)


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
