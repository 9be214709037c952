"""Unrolls of the paper's MLHF and their two losses (paper, section 5).

Step n, from θ_n on batch n, with b_n = ∇ℓ_n(θ_n):

    l_p = mean over n of −⟨d_n, b_n⟩ / √⟨d_n, Ĝ_n d_n⟩                    for RNN_p,
    l_s = 10 Σ_n sg(softmax_n(m)) m_n,
    m_n = ½(ℓ_n(θ_{n+1}) + ℓ_{n+1}(θ_{n+1})) − sg(ℓ_n(θ_n))               for RNN_s.

sg stops gradients. They also stop at b, d_prev, r_prev and θ_n, so θ_{n+1} = sg(θ_n) − step_n;
they flow through the LSTM states. G_n is a constant.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.curvature.ggn import GGN
from mlhf.curvature.vectors import flatten
from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import Batch, UnrollResult, with_value
from mlhf.meta.solve import product, solve
from mlhf.meta.task_models import TaskModels
from mlhf.optimizers.mlhf.kernels.choose import Wanted
from mlhf.optimizers.mlhf.paper.networks import CoordinateNetwork
from mlhf.optimizers.mlhf.paper.optimizer import FLOOR, fresh_networks

_SHARPNESS = 10.0  # the factor before the weighted sum in l_s


class PaperLearner:
    """The paper's MLHF in meta-training.

    Args:
        iterations: PCG iterations.
        lr: Factor of the step.
        step_clip: ‖lr·d‖ is clipped to this fraction of ‖θ‖.
        noise: The step is multiplied elementwise by U(1 − noise, 1 + noise).
        seed: Of the networks' first weights.
        kernel: Which kernel the networks run on.
    """

    keeps_graphs = True

    def __init__(
        self,
        *,
        iterations: int = 4,
        lr: float = 1.0,
        step_clip: float = 0.25,
        noise: float = 0.02,
        seed: int = 0,
        kernel: Wanted = "auto",
    ) -> None:
        self.networks = fresh_networks(seed)
        self._iterations = iterations
        self._lr = lr
        self._step_clip = step_clip
        self._noise = noise
        self._kernel: Wanted = kernel

    def unroll(
        self,
        models: TaskModels,
        start: InnerState,
        batches: Sequence[Batch],
        noise: torch.Generator,
    ) -> UnrollResult:
        damping, preconditioner = (
            CoordinateNetwork(self.networks[name], models.segments, self._kernel)
            for name in ("damping", "preconditioner")
        )
        theta = start.theta
        d, r, state_s, state_p = self._memory(start)
        models.set_parameters(0, theta)
        models.set_buffers(0, start.buffers)
        ggn = models.ggn(0, *batches[0])
        b = flatten(ggn.gradient)
        l_p_terms: list[Tensor] = []  # one per step
        loss_changes: list[Tensor] = []  # m_n
        linear_terms: list[Tensor] = []  # ⟨sg(∂m_n/∂θ_{n+1}), θ_{n+1}⟩
        stats: list[Tensor] = []
        for n in range(len(batches) - 1):
            d_before, r_before = d.detach(), r.detach()
            s, state_s = damping([b, r_before, d_before], state_s, FLOOR)

            def damped(v: Tensor, ggn: GGN = ggn, s: Tensor = s) -> Tensor:
                return torch.addcmul(product(ggn, v), s, v)

            r0 = b - damped(d_before)
            p, state_p = preconditioner([b, r0, d_before], state_p)
            d, r = solve(damped, b, d_before, r0, p, iterations=self._iterations)
            l_p_terms.append(-torch.dot(d, b) / _root(torch.dot(d, b - r)))
            after = theta - self._step(d, theta, noise)

            # One extra pass gives ℓ_n(θ_{n+1}) and its gradient.
            theta = after.detach()
            models.set_parameters(n + 1, theta)
            models.set_buffers(n + 1, models.buffers(n))
            same_loss, same_gradient = models.gradient(n + 1, *batches[n])
            models.set_buffers(n + 1, models.buffers(n))
            before, ggn = ggn.loss, models.ggn(n + 1, *batches[n + 1])
            stats.append(_statistics(s, r, b, before))
            b = flatten(ggn.gradient)
            loss_changes.append(0.5 * (same_loss + ggn.loss) - before)
            linear_terms.append(torch.dot(0.5 * (same_gradient + b), after))
        m = torch.stack(loss_changes)
        weights = torch.softmax(m, 0)
        l_p = torch.stack(l_p_terms).mean()
        l_s = with_value(
            _SHARPNESS * (weights * m).sum(),
            _SHARPNESS * torch.dot(weights, torch.stack(linear_terms)),
        )
        # The last network only evaluated the last step: its statistics include one more batch.
        last = {k: v.clone() for k, v in models.buffers(len(batches) - 2).items()}
        memory = {"d": d, "r": r, "damping": state_s, "preconditioner": state_p}
        end = InnerState(
            start.task,
            theta,
            last,
            start.steps + len(batches) - 1,
            {k: v.detach() for k, v in memory.items()},
        )
        mean_s, residual, loss = torch.stack(stats).mean(0)
        return UnrollResult(
            {"preconditioner": l_p, "damping": l_s},
            end,
            error=m.mean(),
            stats={"damping": mean_s, "cg_residual": residual, "inner_loss": loss},
        )

    def _memory(self, start: InnerState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        like = start.theta
        kept = start.memory or {
            "d": torch.zeros_like(like),
            "r": torch.zeros_like(like),
            **{name: net.initial_state(like) for name, net in self.networks.items()},
        }
        return kept["d"], kept["r"], kept["damping"], kept["preconditioner"]

    def _step(self, d: Tensor, theta: Tensor, noise: torch.Generator) -> Tensor:
        step = self._lr * d
        limit = self._step_clip * torch.linalg.vector_norm(theta)
        step = step * (limit / _root(step.square().sum())).clamp_max(1.0)
        factor = torch.rand(step.shape, generator=noise, dtype=step.dtype).to(step.device)
        noisy: Tensor = step * (1 + self._noise * (2 * factor - 1))
        return noisy


def _root(square: Tensor) -> Tensor:
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def _statistics(s: Tensor, r: Tensor, b: Tensor, loss: Tensor) -> Tensor:
    relative = torch.linalg.vector_norm(r.detach()) / _root(b.square().sum())
    return torch.stack([s.detach().mean(), relative, loss])
