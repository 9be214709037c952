"""L2L: a coordinatewise LSTM that maps gradients to updates.

Andrychowicz et al., Learning to learn by gradient descent by gradient descent (2016): two
LSTM layers of 20 units and a linear map, shared by all coordinates; θ ← θ + 0.1·m. The
gradient enters as its logarithm and sign (their appendix A).
"""

import math
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_pass import trainable
from mlhf.curvature.losses import autograd_loss
from mlhf.curvature.protocol import Loss
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.learned.kinds import Segment
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from mlhf.optimizers.mlhf.paper.networks import columns
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights
from mlhf.optimizers.protocol import State, StepResult

_CHUNK = 1 << 16  # coordinates at a time: the gates of all would be hundreds of vectors
_RANGE = 10.0  # p of the paper: gradients below e^-p are taken as they are


def preprocess(g: Tensor) -> list[Tensor]:
    """Return (log|g|/p, sign g) where |g| ≥ e⁻ᵖ, (−1, eᵖ g) below."""
    size = g.abs()
    large = size >= math.exp(-_RANGE)
    logarithm = torch.where(large, size.clamp_min(math.exp(-_RANGE)).log() / _RANGE, -1.0)
    return [logarithm, torch.where(large, g.sign(), g * math.exp(_RANGE))]


class UpdateRule(Protocol):
    """From a gradient and its own state to an update and the new state."""

    @property
    def weights(self) -> nn.Module:
        """Its meta-parameters."""
        ...

    def initial_state(self, like: Tensor) -> Tensor: ...

    def __call__(self, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]: ...


class LSTMUpdate:
    """The paper's rule. One set of weights for all kinds of parameters."""

    scale = 0.1

    def __init__(self, seed: int = 0) -> None:
        self.weights = NetworkWeights(kinds=1, inputs=2, hidden=20, seed=seed)

    def initial_state(self, like: Tensor) -> Tensor:
        return self.weights.initial_state(like)

    def __call__(self, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        everything = [Segment(0, g.numel(), 0)]
        out, state = columns(preprocess(g), state, self.weights, everything)
        return self.scale * out, state


class LinearUpdate:
    """m = w·g + c, without state: the smallest rule, for checks in closed form."""

    def __init__(self) -> None:
        self.weights = nn.Linear(1, 1)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def initial_state(self, like: Tensor) -> Tensor:
        return like.new_zeros(0, like.numel())

    def __call__(self, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        out: Tensor = self.weights(g.unsqueeze(1))
        return out.squeeze(1), state


class L2L:
    """The learned first-order optimizer, at the cost of a gradient and one network.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        meta_checkpoint: As for ``MLHF``.
        lr: Factor of the learned update.
        weight_decay: L2 penalty, part of the gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
        *,
        lr: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.model = model
        self.lr = lr
        self.weight_decay = weight_decay
        self._loss = autograd_loss(loss)
        self._rule = LSTMUpdate()
        if isinstance(meta_checkpoint, str | Path):
            meta_checkpoint = load_meta_checkpoint(meta_checkpoint, "l2l")
        if meta_checkpoint is not None:
            meta_checkpoint.into({"update": self._rule.weights})
        self._parameters = trainable(model)
        self._state: Tensor | None = None

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        loss = self._loss(self.model(x), y)
        gradients = torch.autograd.grad(
            loss, self._parameters, allow_unused=True, materialize_grads=True
        )
        with torch.no_grad():
            g = flatten(gradients)
            if self.weight_decay:
                g.add_(flatten(self._parameters), alpha=self.weight_decay)
            state = self._rule.initial_state(g) if self._state is None else self._state.to(g)
            self._rule.weights.to(g)
            update = torch.empty_like(g)
            for at in range(0, g.numel(), _CHUNK):
                part = slice(at, at + _CHUNK)
                update[part], state[:, part] = self._rule(g[part], state[:, part])
            self._state = state
            torch._foreach_add_(
                self._parameters, unflatten(update, self._parameters), alpha=self.lr
            )
        return StepResult(loss.detach())

    def state_dict(self) -> State:
        return {"weights": dict(self._rule.weights.state_dict()), "state": self._state}

    def load_state_dict(self, state: State) -> None:
        self._rule.weights.load_state_dict(state["weights"])
        kept = state["state"]
        self._state = None if kept is None else kept.to(self._parameters[0], copy=True)
