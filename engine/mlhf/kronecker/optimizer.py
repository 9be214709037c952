"""MLHF's default form: a quadratic model minimised exactly, in a Kronecker eigenbasis.

On each batch, with gradient b and Gauss-Newton matrix G, in a basis U where G is nearly
diagonal (``basis.py``):

    s = λ_k (√v̂ + eps)          damping, v̂ the running mean of b² in the basis
    P = 1 / (D + s)              preconditioner, D the diagonal of the factored G
    d = argmin ½dᵀ(G + S)d − bᵀd over span{Pb, d', Pr₁, …}
    θ ← θ − d

with d' the last step and r_i the residual after i directions. The minimum is exact for the
batch's own G, by one tangent pass Jq for each direction: there is no learning rate, and the
part of d' takes the place of momentum. Two networks (``controller.py``) correct λ, D and the
step by what the last steps left behind.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.curvature.ggn import GGN
from engine.curvature.primal import chosen
from engine.curvature.protocol import Loss
from engine.mlhf.kronecker.basis import Basis
from engine.mlhf.kronecker.controller import DampingNetwork, Memory, Seen, StepNetwork
from engine.mlhf.kronecker.subspace import curvatures, minimum
from engine.mlhf.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from engine.optimizers.protocol import State, StepResult

_BETA2 = 0.99
_EPS = 1e-5


def fresh_networks() -> dict[str, nn.Module]:
    """Return the networks with weights of zero: the untrained form."""
    return {"damping": DampingNetwork(), "step": StepNetwork()}


class KroneckerMLHF:
    """Steps by the batch's quadratic model over a few well-chosen directions.

    A step costs the gradient, a tangent pass (a third to a half of a gradient) for each
    direction and for the last step, a backward pass for each direction after the first, and
    now and then the basis.

    Works alone: ``opt = MLHF(model); opt.step(x, y)``.

    Args:
        model: Any module whose loss has a Gauss-Newton matrix (``GGN``).
        loss: A loss's name, or a function (z, y) ↦ scalar of what the model returns.
        meta_checkpoint: What the networks learned: ``"default"`` is what is shipped, a path
            names a file, None leaves them untrained.
        iterations: Preconditioned directions besides the last step.
        lr: Factor of the step.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        damping: λ₀ of λ_k = λ₀ (1 + k/T)^½.
        growth_steps: T.
        parameters: Which parameters to train, by default all that require a gradient.
        decay: Of the running means that the basis comes from.
        update_every: Most steps between two updates of those means; at first fewer.
        refresh_every: Most steps between two turns of the basis; at first fewer.
        samples: Samples of a batch that a layer's means are taken from.
        max_dimension: The longest side of a matrix whose basis is turned.
        autocast: The type of forward and backward passes under autocast.
        seed: Of the labels that are drawn for the means.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        DataError: where the meta-checkpoint cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
        *,
        iterations: int = 1,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        damping: float = 30.0,
        growth_steps: float = 100.0,
        parameters: Sequence[Tensor] | None = None,
        decay: float = 0.95,
        update_every: int = 10,
        refresh_every: int = 40,
        samples: int = 32,
        max_dimension: int = 1024,
        autocast: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        if iterations < 1:
            raise ValueError("iterations must be at least 1")
        self.model, self.loss, self.lr = model, loss, lr
        self.iterations, self.weight_decay = iterations, weight_decay
        self.damping, self.growth_steps = damping, growth_steps
        self._parameters = chosen(model, parameters)
        self.networks = fresh_networks()
        if isinstance(meta_checkpoint, str | Path):
            meta_checkpoint = load_meta_checkpoint(meta_checkpoint)
        if meta_checkpoint is not None:
            meta_checkpoint.into(self.networks)
        for network in self.networks.values():
            network.to(self._parameters[0])
        self._basis = Basis(
            model,
            self._parameters,
            loss,
            decay=decay,
            samples=samples,
            max_dimension=max_dimension,
            seed=seed,
        )
        self._update_every, self._refresh_every = update_every, refresh_every
        self._autocast = autocast
        self._memory = Memory()
        self._steps = 0
        self._next_update = self._next_refresh = 0
        self._moment: Tensor | None = None  # v, in the basis
        self._direction: Tensor | None = None  # d', in the basis

    def step(self, x: Any, y: Any) -> StepResult:
        with self._basis.watching():
            ggn = GGN(self.model, self.loss, x, y, self._parameters, autocast=self._autocast)
        self._turn(y)
        with torch.no_grad():
            return self._step(ggn)

    def _turn(self, y: Any) -> None:
        """Bring the basis up to date where that is due: often at first, then ever less."""
        if self._steps >= self._next_update:
            self._basis.update(y)
            self._next_update = self._steps + _interval(self._steps, 40, self._update_every)
        self._basis.forget()
        if self._steps >= self._next_refresh:
            before = None if self._direction is None else self._basis.back(self._direction)
            self._basis.refresh()
            self._direction = None if before is None else self._basis.rotate(before)
            self._next_refresh = self._steps + _interval(self._steps, 10, self._refresh_every)

    def _step(self, ggn: GGN) -> StepResult:
        basis, diagonal = self._basis, self._basis.diagonal
        assert diagonal is not None
        b = basis.rotate(ggn.gradient)
        if self.weight_decay:
            b.add_(basis.rotate(self._parameters), alpha=self.weight_decay)
        features = self._memory.features(b)
        log_damping = self.networks["damping"](features)
        on_diagonal, on_step, on_momentum = self.networks["step"](features).exp().unbind()
        scale, s = self._damping(b, log_damping)
        if self.weight_decay:
            s.add_(self.weight_decay)
        inverse = torch.reciprocal(diagonal * on_diagonal + s)

        q = inverse * b
        previous = torch.zeros_like(b) if self._direction is None else self._direction
        in_basis = [q, previous]
        there = [basis.back(q), basis.back(previous)]
        tangents = [ggn.jvp(v) for v in there]
        pulled = [ggn.hessian(u) for u in tangents]
        stacked = torch.stack(in_basis)
        without = curvatures(tangents, pulled)
        matrix = without + (stacked * s) @ stacked.T
        pull = stacked @ b
        parts = minimum(matrix, pull).to(b)
        first, matrix_first, pull_first = parts, matrix, pull
        for _ in range(self.iterations - 1):
            d = parts @ stacked
            h = [
                sum(c * w[i] for c, w in zip(parts, pulled, strict=True))
                for i in range(len(pulled[0]))
            ]
            r = b - basis.rotate(ggn.vjp(h)) - s * d
            q = inverse * r
            in_basis.append(q)
            there.append(basis.back(q))
            tangents.append(ggn.jvp(there[-1]))
            pulled.append(ggn.hessian(tangents[-1]))
            stacked = torch.stack(in_basis)
            without = curvatures(tangents, pulled)
            matrix = without + (stacked * s) @ stacked.T
            pull = stacked @ b
            parts = minimum(matrix, pull).to(b)

        model = torch.dot(parts, pull) - 0.5 * torch.dot(parts, matrix @ parts)
        tiny = torch.finfo(b.dtype).tiny
        own = without.diagonal()
        self._memory.add(
            Seen(
                loss=ggn.loss,
                fresh=first[0],
                momentum=first[1],
                left=pull_first[1] / own[1].clamp_min(tiny),
                damped=1 - own[0] / matrix_first[0, 0].clamp_min(tiny),
                diagonal=(own[0].clamp_min(tiny)
                          / torch.dot(in_basis[0] * diagonal, in_basis[0]).clamp_min(tiny)).log(),
                predicted=model,
            )
        )  # fmt: skip
        parts = parts * on_step
        parts[1] *= on_momentum
        self._direction = parts @ stacked
        moves = [
            [c * t for t in v] for c, v in zip((-self.lr * parts).unbind(), there, strict=True)
        ]
        for move in moves:
            torch._foreach_add_(self._parameters, move)
        self._steps += 1
        return StepResult(
            ggn.loss, {"damping": scale, "momentum": first[1], "step_factor": on_step}
        )

    def _damping(self, b: Tensor, log_factors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the damping's scale, and the damping in the basis."""
        if self._moment is None:
            self._moment = torch.zeros_like(b)
        self._moment.mul_(_BETA2).addcmul_(b, b, value=1 - _BETA2)
        correction = (1 - _BETA2 ** (self._steps + 1)) ** -0.5
        scale = self.damping * (1 + self._steps / self.growth_steps) ** 0.5
        s = self._moment.sqrt().mul_(correction).add_(_EPS)
        factors = (scale * log_factors.exp()).to(b)
        at = 0
        for size, kind in self._basis.kinds:
            s[at : at + size] *= factors[kind]
            at += size
        return factors.mean(), s

    def state_dict(self) -> State:
        return {
            "steps": self._steps,
            "next_update": self._next_update,
            "next_refresh": self._next_refresh,
            "moment": self._moment,
            "direction": self._direction,
            "basis": self._basis.state_dict(),
            "memory": self._memory.state_dict(),
            "networks": {name: dict(net.state_dict()) for name, net in self.networks.items()},
        }

    def load_state_dict(self, state: State) -> None:
        like = self._parameters[0]
        self._steps = int(state["steps"])
        self._next_update = int(state["next_update"])
        self._next_refresh = int(state["next_refresh"])
        self._moment, self._direction = (
            None if state[name] is None else state[name].to(like, copy=True)
            for name in ("moment", "direction")
        )
        self._basis.load_state_dict(state["basis"])
        self._memory.load_state_dict(state["memory"], like)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])


def _interval(steps: int, part: int, most: int) -> int:
    return min(most, max(1, steps // part))
