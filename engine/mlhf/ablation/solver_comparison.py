"""Several ways to solve each step's system, measured along one training trajectory.

At every step all variants solve with the gradient b of the same batch at the same θ, and those
of one matrix with the very same Ĝ. Each starts from its own last solution, as it would if it
ran alone. Only one of them moves θ. Measured of each solution d with residual r = b − Ĝd:
l_p = −⟨d,b⟩/√⟨d,Ĝd⟩ (paper, section 5: lower is better, lowest at the exact solution), and
‖r‖/‖b‖.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mlhf.ablation.config import SOLVER_VARIANTS, STEPPING, SolverVariant
from mlhf.curvature.ggn import GGN
from mlhf.curvature.pcg import PCGResult, Product, pcg
from mlhf.curvature.protocol import Loss
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.damping import AdamDamping
from mlhf.optimizers.learned.families import PAPER
from mlhf.optimizers.learned.kinds import by_kind
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from mlhf.optimizers.mlhf.paper.networks import CoordinateNetwork
from mlhf.optimizers.mlhf.paper.optimizer import FLOOR, fresh_networks
from mlhf.optimizers.protocol import State, StepResult

_WARM = {"learned": 1.0, "adam": 0.9}  # as MLHF and hf_adam warm-start


class SolverComparison:
    """An optimizer that steps as one variant does, and measures all of them.

    A step's ``stats`` hold the scalars ``l_p/<variant>`` and ``residual/<variant>``.

    Args:
        model: Any module that returns one tensor.
        loss: A named loss, or a function.
        meta_checkpoint: Of ``mlhf``: ``default``, a path, one that is loaded, or None for
            untrained networks.
        variants: What is measured.
        stepping: Name of the variant that moves θ.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
        variants: Sequence[SolverVariant] = SOLVER_VARIANTS,
        stepping: str = STEPPING,
    ) -> None:
        networks = fresh_networks()
        if isinstance(meta_checkpoint, str | Path):
            meta_checkpoint = load_meta_checkpoint(meta_checkpoint, PAPER)
        if meta_checkpoint is not None:
            meta_checkpoint.into(networks)
        found, segments = by_kind(model)
        like = flatten([p.detach() for p in found])
        for network in networks.values():
            network.to(like)
        self.model, self.loss = model, loss
        self.variants = tuple(variants)
        self._parameters: list[Tensor] = list(found)
        self._damping = CoordinateNetwork(networks["damping"], segments)
        self._preconditioner = CoordinateNetwork(networks["preconditioner"], segments)
        self._adam = AdamDamping()
        self._stepping = next(i for i, variant in enumerate(variants) if variant.name == stepping)
        if variants[self._stepping].matrix != "learned":
            raise ValueError("the variant that steps must use the learned damping")
        # What a step leaves to the next: each variant's d, and the state of its RNN_p if it has
        # one; of the variant that steps also r, and RNN_s's state.
        self._d = [torch.zeros_like(like) for _ in variants]
        self._r = torch.zeros_like(like)
        self._damping_state = networks["damping"].initial_state(like)
        empty = like.new_zeros(0)
        initial = networks["preconditioner"].initial_state
        self._states = [initial(like) if f.preconditioner == "learned" else empty for f in variants]

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        ggn = GGN(self.model, self.loss, x, y, self._parameters)
        stats: dict[str, Tensor] = {}
        with torch.no_grad():
            b = flatten(ggn.gradient)
            inputs = [b, self._r, self._d[self._stepping]]
            learned = self._damping.step(inputs, self._damping_state, FLOOR)
            adam, _ = self._adam.update(b)
            for i, variant in enumerate(self.variants):
                shift = learned if variant.matrix == "learned" else adam
                solved = self._solve(i, ggn, b, shift)
                stats[variant.stat("l_p")], stats[variant.stat("residual")] = quality(solved)
                self._d[i] = solved.x
                if i == self._stepping:
                    assert solved.residual is not None
                    self._r = solved.residual
            step = unflatten(self._d[self._stepping], self._parameters)
            torch._foreach_add_(self._parameters, step, alpha=-1.0)
        return StepResult(ggn.loss, stats)

    def _solve(self, i: int, ggn: GGN, b: Tensor, shift: Tensor) -> PCGResult:
        variant = self.variants[i]
        start = self._d[i] * _WARM[variant.matrix]

        def product(v: Tensor) -> Tensor:
            return flatten(ggn.product(unflatten(v, self._parameters))).addcmul_(shift, v)

        def learned(r0: Tensor) -> Tensor:
            return self._preconditioner.step([b, r0, start], self._states[i])

        inverse: Tensor | Product | None = None
        if variant.preconditioner == "learned":
            inverse = learned
        elif variant.preconditioner == "damping":
            inverse = shift.reciprocal()
        return pcg(product, b, start, inverse, iterations=variant.iterations)

    def state_dict(self) -> State:
        return {
            "d": self._d,
            "r": self._r,
            "damping": self._damping_state,
            "preconditioners": self._states,
            "adam": self._adam.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        like = self._r
        self._d = [d.to(like, copy=True) for d in state["d"]]
        self._r = state["r"].to(like, copy=True)
        self._damping_state = state["damping"].to(like, copy=True)
        self._states = [s.to(like, copy=True) for s in state["preconditioners"]]
        self._adam.load_state_dict(state["adam"], like)


def quality(solved: PCGResult) -> tuple[Tensor, Tensor]:
    """Return l_p and ‖r‖/‖b‖ of a solution, scalars. ⟨d,Ĝd⟩ = ⟨d,b − r⟩ costs no product."""
    curvature, b = solved.curvature, solved.right_side
    assert curvature is not None
    tiny = torch.finfo(b.dtype).tiny
    l_p = -torch.dot(solved.x, b) / curvature.clamp_min(math.sqrt(tiny)).sqrt()
    return l_p, solved.residual_norm / torch.linalg.vector_norm(b).clamp_min(tiny)
