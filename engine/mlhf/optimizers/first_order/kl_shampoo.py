"""KL-Shampoo (Lin et al. 2025): Shampoo's factors, chosen by a Kullback-Leibler divergence."""

from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.eigenvectors import eigenvectors
from mlhf.optimizers.first_order.first_order import FirstOrder
from mlhf.optimizers.first_order.shampoo import Shampoo, blocks_of, build_of
from mlhf.optimizers.params import KLShampooParams


def build(model: nn.Module, loss: Loss, params: KLShampooParams, seed: int) -> FirstOrder:
    """Return KL-Shampoo of all the model's parameters; those of one dimension get Adam's step."""
    return build_of(KLShampoo, model, loss, params)


class KLShampoo(Shampoo):
    """θ ← θ − lr·L^(−½) m R^(−½), block by block of each matrix.

    m is the running mean of the gradient G, and the Gaussian of covariance L ⊗ R is the nearest
    to G's by KL divergence: L = E[G R⁻¹ Gᵀ]/n and R = E[Gᵀ L⁻¹ G]/m, as running means in which
    each uses the other's newest eigenvectors and values. Nothing is grafted, but a block's step is
    at most 1 in the root mean square (Adafactor's clipping): in directions that no gradient had
    when the factors were decomposed it would be many times that. Parameters of one dimension get
    Adam's step. A kernel (out, in, …) is the matrix (out, in·…).

    Its arguments are Shampoo's; ``betas`` are the decays of m, and of L, R and Adam's squares,
    ``eps`` is added to the root in Adam's denominator.
    """

    def __init__(
        self, parameters: Any, betas: tuple[float, float] = (0.9, 0.95), **options: Any
    ) -> None:
        super().__init__(parameters, betas=betas, **options)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        step = self._step_of(parameter, gradient, group)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(step, alpha=group["lr"])

    def _step_of(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        beta1, beta2 = group["betas"]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
            if gradient.ndim < 2:
                state["square"] = torch.zeros_like(state["mean"])
            else:
                blocks = blocks_of(gradient, group["block_size"])
                state["sides"] = [[_identity(side, b) for side in b.shape] for b in blocks]
        due = state["step"] % group["precondition_every"] == 0
        state["step"] += 1
        k = state["step"]
        mean: Tensor = state["mean"].lerp_(gradient, 1 - beta1) / (1 - beta1**k)
        if gradient.ndim < 2:
            square = state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root: Tensor = (square / (1 - beta2**k)).sqrt_().add_(group["eps"])
            return mean.div_(root)
        step = torch.empty_like(mean)
        size = group["block_size"]
        by_block = (blocks_of(tensor, size) for tensor in (gradient, mean, step))
        weight = max(1 - beta2, 1 / k)  # a plain mean at first
        for g, m, s, sides in zip(*by_block, state["sides"], strict=True):
            left, right = sides
            # R after L, by the newest L: at once, each would take the other's scale in turns.
            for side, other, rows in ((left, right, g), (right, left, g.T)):
                side["factor"].lerp_(_product(rows, other), weight)
                if due:
                    _decompose(side, group["matrix_eps"])
            direction = _root(left) @ m @ _root(right)
            root_mean_square = direction.square().mean().sqrt().clamp_min(1.0)
            s.copy_(direction.div_(root_mean_square))
        return step


def _identity(side: int, like: Tensor) -> dict[str, Tensor]:
    eye = torch.eye(side, dtype=like.dtype, device=like.device)
    return {"factor": eye.clone(), "vectors": eye, "values": like.new_ones(side)}


def _decompose(side: dict[str, Tensor], eps: float) -> None:
    values, vectors = eigenvectors(side["factor"])
    values = values.clamp_min(0)
    side["values"] = (values + eps * values[-1]).clamp_min(1e-30)  # not 0, where there is nothing
    side["vectors"] = vectors.contiguous()  # as a checkpoint restores it


def _product(g: Tensor, other: dict[str, Tensor]) -> Tensor:
    """Return G R⁻¹ Gᵀ / n, (m, m), for G (m, n) and R by its eigenvectors and values."""
    scaled = g @ other["vectors"] * other["values"].rsqrt()
    return scaled @ scaled.T / g.shape[1]


def _root(side: dict[str, Tensor]) -> Tensor:
    """Return F^(−½) of a factor by its eigenvectors and values."""
    root: Tensor = (side["vectors"] * side["values"].rsqrt()) @ side["vectors"].T
    return root
