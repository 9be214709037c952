"""MLHF's default form: a quadratic model minimised exactly, in a Kronecker eigenbasis.

On each batch, with gradient b and Gauss-Newton matrix G, in a basis U where G is nearly
diagonal (``basis.py``):

    s = λ_k (√v̂ + eps)          damping, v̂ the running mean of b² in the basis
    P = 1 / (D + s)              preconditioner, D the diagonal of the factored G
    d = argmin ½dᵀ(G + S)d − bᵀd over span{Pb, d', Pr₁, …}
    θ ← θ − d

with d' the last step and r_i the residual after i directions. The minimum is exact for the
batch's own G, by one tangent pass Jq for each direction: there is no learning rate, and the
part of d' takes the place of momentum (Martens & Grosse 2015, sections 6.4 and 7, choose both
so for K-FAC; the damping and where it lives differ). Two networks (``controller.py``) correct
λ, D and the step by what the last steps left behind.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_pass import select_parameters
from mlhf.curvature.ggn import GGN
from mlhf.curvature.protocol import Loss
from mlhf.curvature.vectors import unflatten
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from mlhf.optimizers.mlhf.kronecker.average import RunningAverage
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.controller import DampingNetwork, Memory, StepNetwork
from mlhf.optimizers.mlhf.kronecker.model import Direction, combined
from mlhf.optimizers.mlhf.kronecker.solver import Solver, interval
from mlhf.optimizers.protocol import State, StepResult

_BETA2 = 0.99
_EPS = 1e-5


def fresh_networks() -> dict[str, nn.Module]:
    """Return the networks with weights of zero: the untrained form."""
    return {"damping": DampingNetwork(), "step": StepNetwork()}


class KroneckerMLHF:
    """Steps by the batch's quadratic model over a few well-chosen directions.

    A step costs the gradient and, once the loss is low, a tangent pass (half a gradient);
    where it solves another for each direction, and a backward pass for each direction after
    the first; and now and then the basis.

    What the steps leave behind is noisy, as after any steps of full length. So the result is an
    average along the way, over a constant part of the steps so far: ``eval_mode`` puts it into
    the model, ``train_mode`` puts back what steps start from.

    Works alone: ``opt = MLHF(model); opt.step(x, y)``, and ``opt.eval_mode()`` at the end.

    Args:
        model: Any module whose loss has a Gauss-Newton matrix (``GGN``).
        loss: A loss's name, or a function (z, y) ↦ scalar of what the model returns.
        meta_checkpoint: What the networks learned: ``"default"`` is what is shipped, a path
            names a file, None leaves them untrained.
        iterations: Preconditioned directions besides the last step.
        solve_every: Of so many steps, at first fewer, one finds the minimum over all
            directions; the others make do with less (``solver.py``).
        lr: Factor of the step.
        average: The part of the steps so far over which the result is averaged; with 0 it is
            where the last step led.
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
        seed: Of the signs by which the trace of the loss's Hessian is estimated.

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
        solve_every: int = 15,
        lr: float = 1.0,
        average: float = 0.03,
        weight_decay: float = 0.0,
        damping: float = 30.0,
        growth_steps: float = 100.0,
        parameters: Sequence[Tensor] | None = None,
        decay: float = 0.95,
        update_every: int = 10,
        refresh_every: int = 40,
        samples: int = 32,
        max_dimension: int = 4608,
        autocast: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        if iterations < 1:
            raise ValueError("iterations must be at least 1")
        if solve_every < 1:
            raise ValueError("solve_every must be at least 1")
        self.model, self.loss, self.lr = model, loss, lr
        self.weight_decay = weight_decay
        self.damping, self.growth_steps = damping, growth_steps
        self._parameters = select_parameters(model, parameters)
        self._average = RunningAverage(self._parameters, average)
        self.networks = fresh_networks()
        if isinstance(meta_checkpoint, str | Path):
            meta_checkpoint = load_meta_checkpoint(meta_checkpoint)
        if meta_checkpoint is not None:
            meta_checkpoint.into(self.networks)
        self._basis = Basis(
            model,
            self._parameters,
            decay=decay,
            samples=samples,
            max_dimension=max_dimension,
            seed=seed,
        )
        self._update_every, self._refresh_every = update_every, refresh_every
        self._autocast = autocast
        self._memory = Memory()
        self._solver = Solver(self._basis, self._memory, iterations, solve_every)
        self._steps = 0
        self._largest = 0  # batch so far
        self._next_update = self._next_refresh = 0
        self._moment: Tensor | None = None  # v, in the basis
        self._last: Direction | None = None  # d'

    def step(self, x: Any, y: Any) -> StepResult:
        share = self._share(x)
        due = self._steps >= self._next_update and 2 * share > 1
        with self._basis.watching() if due else nullcontext():
            ggn = GGN(
                self.model,
                self.loss,
                x,
                y,
                self._parameters,
                autocast=self._autocast,
                edges=(lambda: self._basis.edges) if due else None,
            )
        self._turn(ggn, due)
        with torch.no_grad():
            return self._step(ggn, share)

    def _share(self, x: Any) -> float:
        """Return the batch's size in parts of the largest so far.

        An epoch may end in a few samples. Their own minimum is far from everybody's: the step
        is that part of it, and v and the means take in as little of them.
        """
        if not isinstance(x, Tensor) or not x.numel() or not x.ndim:
            return 1.0
        self._largest = max(self._largest, len(x))
        return len(x) / self._largest

    def _turn(self, ggn: GGN, due: bool) -> None:
        """Bring the basis up to date where that is due: often at first, then ever less."""
        if due:
            self._basis.update(ggn)
            self._basis.forget()
            self._next_update = self._steps + interval(self._steps, 40, self._update_every)
        if self._steps >= self._next_refresh:
            self._basis.refresh()
            if self._last is not None:
                plain = self._last.plain
                turned = self._basis.rotate(unflatten(plain, self._parameters))
                self._last = Direction(turned, plain)
            self._next_refresh = self._steps + interval(self._steps, 7, self._refresh_every)

    def _step(self, ggn: GGN, share: float) -> StepResult:
        basis = self._basis
        b = basis.rotate(ggn.gradient)
        penalty = b.new_zeros(())
        if self.weight_decay:
            theta = basis.rotate(self._parameters)
            b.add_(theta, alpha=self.weight_decay)
            penalty = 0.5 * self.weight_decay * torch.dot(theta, theta)
        features = torch.tensor(self._memory.features())
        by_kind = self.networks["damping"](features).exp().tolist()
        on_diagonal, on_step, on_momentum = self.networks["step"](features).exp().tolist()
        scale, s = self._damping(b, by_kind, share)
        if self.weight_decay:
            s.add_(self.weight_decay)
        inverse = torch.add(s, basis.of_curvature(), alpha=on_diagonal).reciprocal_()

        last = self._last or Direction(torch.zeros_like(b), torch.zeros_like(b))
        directions, parts = self._solver.solve(ggn, b, s, inverse, last, penalty)
        stats = {"damping": scale, "momentum": float(parts[1]), "step_factor": on_step}
        parts = parts * (on_step * share)
        parts[1] *= on_momentum
        self._last = combined(parts, directions)
        step = unflatten(self._last.plain, self._parameters)
        torch._foreach_add_(self._parameters, step, alpha=-self.lr)
        self._steps += 1
        self._average.add(self._steps)
        return StepResult(ggn.loss, stats)

    def _damping(self, b: Tensor, by_kind: Sequence[float], share: float) -> tuple[float, Tensor]:
        """Return the damping's scale, and the damping in the basis.

        Args:
            by_kind: Factors of it, one for each kind of parameter.
        """
        if self._moment is None:
            self._moment = torch.zeros_like(b)
        self._moment.mul_(_BETA2).addcmul_(b, b, value=(1 - _BETA2) * share)
        correction = (1 - _BETA2 ** (self._steps + 1)) ** -0.5
        scale = self.damping * (1 + self._steps / self.growth_steps) ** 0.5
        s = self._moment.sqrt().mul_(correction).add_(_EPS)
        parts = self._basis.parts
        pieces = torch.split_with_sizes(s, [part.size for part in parts])
        torch._foreach_mul_(pieces, [scale * by_kind[p.kind] * p.damped for p in parts])
        return scale * sum(by_kind) / len(by_kind), s

    def eval_mode(self) -> None:
        """Put the averaged weights into the model; batch norm's statistics are not theirs."""
        self._average.show()

    def train_mode(self) -> None:
        """Put the weights that steps start from back into the model."""
        self._average.hide()

    def state_dict(self) -> State:
        return {
            "steps": self._steps,
            "largest": self._largest,
            "average": self._average.state_dict(),
            "next_update": self._next_update,
            "next_refresh": self._next_refresh,
            "moment": self._moment,
            "last": None if self._last is None else list(self._last),
            "solver": self._solver.state_dict(),
            "basis": self._basis.state_dict(),
            "memory": self._memory.state_dict(),
            "networks": {name: dict(net.state_dict()) for name, net in self.networks.items()},
        }

    def load_state_dict(self, state: State) -> None:
        like = self._parameters[0]
        self._steps, self._largest = int(state["steps"]), int(state["largest"])
        self._average.load_state_dict(state["average"])
        self._next_update = int(state["next_update"])
        self._next_refresh = int(state["next_refresh"])
        moment = state["moment"]
        self._moment = None if moment is None else moment.to(like, copy=True)
        self._solver.load_state_dict(state["solver"])
        last = state["last"]
        self._last = None if last is None else Direction(*(t.to(like, copy=True) for t in last))
        self._basis.load_state_dict(state["basis"])
        self._memory.load_state_dict(state["memory"])
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
