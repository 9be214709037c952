"""L2L: a coordinatewise LSTM that maps gradients to updates.

Andrychowicz et al., Learning to learn by gradient descent by gradient descent (2016): two
LSTM layers of 20 units and a linear map, shared by all coordinates; θ ← θ + 0.1·m. The
gradient enters as its logarithm and sign (their appendix A).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import explained
from mlhf.curvature.forward_pass import full_precision
from mlhf.curvature.linearize import dense, refuse_reentrant
from mlhf.curvature.losses import autograd_loss
from mlhf.curvature.protocol import Loss
from mlhf.curvature.vectors import flatten, unflatten, vector_like
from mlhf.optimizers.learned.families import L2L as L2L_FAMILY
from mlhf.optimizers.learned.kinds import Segment
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_weights, source_of
from mlhf.optimizers.mlhf.paper.networks import columns
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights
from mlhf.optimizers.options import check_model, check_options
from mlhf.optimizers.params import L2LParams
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.state import check_state, restored, shapes_of
from mlhf.optimizers.step_guard import StepGuard, check
from mlhf.optimizers.torch_api.base import TorchOptimizer, sum_of
from mlhf.optimizers.torch_api.gradients import Gradients
from mlhf.optimizers.torch_api.param_groups import Parameters, flat
from mlhf.optimizers.torch_api.recorder import Pass

_CHUNK = 1 << 16  # coordinates at a time, since each takes hundreds of numbers
_RANGE = 10.0  # p of the paper: smaller gradients than e^-p enter linearly


def preprocess(g: Tensor) -> list[Tensor]:
    """Return (log|g|/p, sign g) where |g| ≥ e⁻ᵖ, (−1, eᵖ g) below."""
    size = g.abs()
    large = size >= math.exp(-_RANGE)
    logarithm = torch.where(large, size.clamp_min(math.exp(-_RANGE)).log() / _RANGE, -1.0)
    return [logarithm, torch.where(large, g.sign(), g * math.exp(_RANGE))]


class UpdateRule(Protocol):
    """Maps a gradient (n,) and a state (S, n) to an update (n,) and the new state."""

    @property
    def weights(self) -> nn.Module:
        """The meta-parameters."""
        ...

    def initial_state(self, like: Tensor) -> Tensor: ...

    def __call__(self, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]: ...


class LSTMUpdate:
    """The paper's rule: one set of weights for all kinds of parameters."""

    scale = 0.1

    def __init__(self, seed: int = 0) -> None:
        self.weights = NetworkWeights(kinds=1, inputs=2, hidden=20, seed=seed)

    def initial_state(self, like: Tensor) -> Tensor:
        return self.weights.initial_state(like)

    def __call__(self, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        whole = [Segment(0, g.numel(), 0)]
        out, state = columns(preprocess(g), state, self.weights, whole)
        return self.scale * out, state


class L2L(TorchOptimizer):
    """The learned first-order optimizer, at the cost of a gradient and one network.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        meta_checkpoint: As for ``MLHF``.
        lr: Factor of the learned update.
        weight_decay: L2 penalty, part of the gradient.
        parameters: As for ``HessianFree``.
        max_skipped_steps: Steps that are not finite are skipped; after so many in a row the
            next is an error.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        DataError: where the meta-checkpoint cannot be read or used, or is another optimizer's.
        ValueError: for an unknown loss, or an option out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
        *,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        parameters: Parameters | None = None,
        max_skipped_steps: int = 10,
    ) -> None:
        check_model(model)
        check_options(lr=lr, weight_decay=weight_decay)
        self._guard = StepGuard(model, max_skipped_steps)
        self._loss = autograd_loss(loss)
        self._rule = LSTMUpdate()
        load_weights({"update": self._rule.weights}, meta_checkpoint, L2L_FAMILY)
        super().__init__(model, loss, parameters, {"lr": lr, "weight_decay": weight_decay})

    def _begin(self) -> None:
        self._network_state: Tensor | None = None

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    def _step_on_batch(self, x: Any, y: Any, batch_size: float | None) -> StepResult:
        return self._guard.run(self._guarded_step, x, y)

    def _guarded_step(self, x: Any, y: Any) -> StepResult:
        loss = self._loss(self.model(x), y)
        with explained():
            found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        refuse_reentrant(found, [loss])
        return self._step(loss, dense(found, self._parameters))

    def _step_on(self, passes: Sequence[Pass], gradients: Gradients) -> StepResult:
        """Take a step by the gradients alone: the loss may be any, and is told where known."""
        loss = self._parameters[0].detach().new_full((), torch.nan if not passes else 0.0)
        if passes:
            loss = sum_of(passes, gradients).loss
        targets = [each.target for each in passes]
        return self._guard.run(lambda *_: self._step(loss, gradients.values), None, targets)

    def _step(self, loss: Tensor, gradient: Sequence[Tensor]) -> StepResult:
        with torch.no_grad(), full_precision(loss.device):
            g = flatten(gradient)
            lr, decay = self._option("lr"), self._option("weight_decay")
            if isinstance(decay, list):
                g.addcmul_(flatten(self._parameters), flat(decay, self._parameters))
            elif decay:
                g.add_(flatten(self._parameters), alpha=decay)
            # From here on all is finite: the networks' states are bounded, and so is the update.
            check(loss, {"gradient": [g]})
            before = self._network_state
            state = self._rule.initial_state(g) if before is None else before.to(g)
            self._rule.weights.to(g)
            update = torch.empty_like(g)
            for at in range(0, g.numel(), _CHUNK):
                chunk = slice(at, at + _CHUNK)
                update[chunk], state[:, chunk] = self._rule(g[chunk], state[:, chunk])
            self._network_state = state
            if isinstance(lr, list):
                update, lr = update * flat(lr, self._parameters), 1.0
            torch._foreach_add_(self._parameters, unflatten(update, self._parameters), alpha=lr)
        return StepResult(loss.detach())

    def _state(self) -> State:
        return {
            "weights": dict(self._rule.weights.state_dict()),
            "state": self._network_state,
            "shapes": shapes_of(self._parameters),
            "guard": self._guard.state_dict(),
        }

    def _load(self, state: State) -> None:
        check_state(self, state, ("weights", "state"), self._parameters, self.model)
        self._guard.load_state_dict(state.get("guard"))
        self._rule.weights.load_state_dict(state["weights"])
        self._network_state = restored(state["state"], vector_like(self._parameters))


def build(model: nn.Module, loss: Loss, params: L2LParams, seed: int) -> L2L:
    """Return ``l2l`` of the registry."""
    source = source_of(params.meta_checkpoint)
    return L2L(
        model,
        loss,
        source,
        lr=params.lr,
        weight_decay=params.weight_decay,
        max_skipped_steps=params.max_skipped_steps,
    )
