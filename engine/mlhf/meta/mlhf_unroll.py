"""Unrolls of MLHF and their two losses (paper, section 5).

Step n, from θ_n on batch n, with b_n = ∇ℓ_n(θ_n):

    l_p = mean over n of −⟨d_n, b_n⟩ / √⟨d_n, Ĝ_n d_n⟩                    for RNN_p,
    l_s = 10 Σ_n sg(softmax_n(m)) m_n,
    m_n = ½(ℓ_n(θ_{n+1}) + ℓ_{n+1}(θ_{n+1})) − sg(ℓ_n(θ_n))               for RNN_s.

sg stops gradients. They also stop at b, d_prev, r_prev and θ_n, so θ_{n+1} = sg(θ_n) − step_n;
they go on through the LSTM states. G_n is a constant.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.curvature.ggn import GGN
from mlhf.curvature.vectors import flatten
from mlhf.meta.learned import Batch, Unrolled, with_value
from mlhf.meta.solve import product, solve
from mlhf.meta.trajectory import Bench, Point
from mlhf.optimizers.mlhf.paper.kernels.choose import Wanted
from mlhf.optimizers.mlhf.paper.networks import CoordinateNetwork
from mlhf.optimizers.mlhf.paper.optimizer import FLOOR, fresh_networks

_SHARPNESS = 10.0  # the factor before the weighted sum in l_s


class MLHFUnroll:
    """MLHF in meta-training.

    Args:
        iterations: PCG iterations.
        lr: Factor of the step.
        step_clip: ‖lr·d‖ is cut to this part of ‖θ‖.
        noise: The step is multiplied elementwise by U(1 − noise, 1 + noise).
        seed: Of the networks' first weights.
        kernel: Which form the networks run in.
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
        self, bench: Bench, start: Point, batches: Sequence[Batch], noise: torch.Generator
    ) -> Unrolled:
        damping, preconditioner = (
            CoordinateNetwork(self.networks[name], bench.segments, self._kernel)
            for name in ("damping", "preconditioner")
        )
        theta = start.theta
        d, r, state_s, state_p = self._memory(start)
        bench.place(0, theta)
        bench.put_buffers(0, start.buffers)
        ggn = bench.curvature(0, *batches[0])
        b = flatten(ggn.gradient)
        fits: list[Tensor] = []  # the terms of l_p
        gains: list[Tensor] = []  # m_n
        pulls: list[Tensor] = []  # ⟨sg(∂m_n/∂θ_{n+1}), θ_{n+1}⟩
        stats: list[Tensor] = []
        for n in range(len(batches) - 1):
            d_before, r_before = d.detach(), r.detach()
            s, state_s = damping([b, r_before, d_before], state_s, FLOOR)

            def damped(v: Tensor, ggn: GGN = ggn, s: Tensor = s) -> Tensor:
                return torch.addcmul(product(ggn, v), s, v)

            r0 = b - damped(d_before)
            p, state_p = preconditioner([b, r0, d_before], state_p)
            d, r = solve(damped, b, d_before, r0, p, iterations=self._iterations)
            fits.append(-torch.dot(d, b) / _root(torch.dot(d, b - r)))
            after = theta - self._step(d, theta, noise)

            # One extra pass tells ℓ_n(θ_{n+1}) and its gradient.
            theta = after.detach()
            bench.place(n + 1, theta)
            bench.put_buffers(n + 1, bench.buffers(n))
            same_loss, same_gradient = bench.gradient(n + 1, *batches[n])
            bench.put_buffers(n + 1, bench.buffers(n))
            before, ggn = ggn.loss, bench.curvature(n + 1, *batches[n + 1])
            stats.append(_statistics(s, r, b, before))
            b = flatten(ggn.gradient)
            gains.append(0.5 * (same_loss + ggn.loss) - before)
            pulls.append(torch.dot(0.5 * (same_gradient + b), after))
        m = torch.stack(gains)
        weights = torch.softmax(m, 0)
        l_p = torch.stack(fits).mean()
        l_s = with_value(_SHARPNESS * (weights * m).sum(),
                         _SHARPNESS * torch.dot(weights, torch.stack(pulls)))  # fmt: skip
        # The last network only judged the last step: its statistics have seen one batch more.
        last = {k: v.clone() for k, v in bench.buffers(len(batches) - 2).items()}
        memory = {"d": d, "r": r, "damping": state_s, "preconditioner": state_p}
        end = Point(
            start.task,
            theta,
            last,
            start.steps + len(batches) - 1,
            {k: v.detach() for k, v in memory.items()},
        )
        mean_s, residual, loss = torch.stack(stats).mean(0)
        return Unrolled(
            {"preconditioner": l_p, "damping": l_s},
            end,
            error=m.mean(),
            stats={"damping": mean_s, "cg_residual": residual, "inner_loss": loss},
        )

    def _memory(self, start: Point) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
