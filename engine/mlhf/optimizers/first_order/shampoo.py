"""Shampoo (Gupta et al. 2018) as it is used today (Anil et al. 2020, Shi et al. 2023).

That is: running means in place of sums, Adam's step size (grafting), momentum of the plain
gradient, and large parameters in blocks. It is implemented here because the maintained
implementations either need a newer Python and are not on the package index, or keep state that
is not tensors.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.eigenvectors import eigenvectors
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.options import check_options
from mlhf.optimizers.params import ShampooParams


def build(model: nn.Module, loss: Loss, params: ShampooParams, seed: int) -> FirstOrder:
    """Return Shampoo of all the model's parameters; those of one dimension get Adam's step."""
    return build_of(Shampoo, model, loss, params)


def build_of(
    kind: "type[Shampoo]", model: nn.Module, loss: Loss, params: ShampooParams
) -> FirstOrder:
    """Return a form of Shampoo of all the model's parameters."""
    inner = kind(
        trained(model),
        lr=params.lr,
        betas=(params.beta1, params.beta2),
        eps=params.eps,
        matrix_eps=params.matrix_eps,
        weight_decay=params.weight_decay,
        precondition_every=params.precondition_every,
        block_size=params.block_size,
    )
    return FirstOrder(model, loss, [inner], max_skipped_steps=params.max_skipped_steps)


class Shampoo(torch.optim.Optimizer):
    """θ ← θ − lr·‖a‖·D/‖D‖ with D = L^(−¼) m R^(−¼), block by block of each matrix.

    m is the running mean of the gradient G, L and R those of GGᵀ and GᵀG, and a = m̂/(√v̂ + eps)
    Adam's step, which alone moves parameters of one dimension. A kernel (out, in, …) is the
    matrix (out, in·…).

    Args:
        parameters: What is trained.
        lr: Learning rate.
        betas: Decays of m, and of v, L and R.
        eps: Added to √v̂.
        matrix_eps: Added to the eigenvalues of L and R, relative to the largest.
        weight_decay: Decoupled: θ shrinks by lr·weight_decay each step.
        precondition_every: Steps between two computations of the roots.
        block_size: Largest side of a block.
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        matrix_eps: float = 1e-6,
        weight_decay: float = 0.0,
        precondition_every: int = 10,
        block_size: int = 1024,
    ) -> None:
        check_options(
            lr=lr,
            eps=eps,
            matrix_eps=matrix_eps,
            weight_decay=weight_decay,
            precondition_every=precondition_every,
            block_size=block_size,
        )
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "matrix_eps": matrix_eps,
            "weight_decay": weight_decay,
            "precondition_every": precondition_every,
            "block_size": block_size,
        }
        super().__init__(parameters, options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
            state["square"] = torch.zeros_like(state["mean"])
            state["factors"] = [_factors(b) for b in blocks_of(gradient, group["block_size"])]
            state["roots"] = [[torch.empty_like(f) for f in pair] for pair in state["factors"]]
        beta1, beta2 = group["betas"]
        due = state["step"] % group["precondition_every"] == 0
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        step = (mean / (1 - beta1 ** state["step"])).div_(root)  # Adam's

        size = group["block_size"]
        by_block = (blocks_of(tensor, size) for tensor in (gradient, mean, step))
        for g, m, s, factors, roots in zip(
            *by_block, state["factors"], state["roots"], strict=True
        ):
            for factor, product in zip(factors, (g @ g.T, g.T @ g), strict=True):
                factor.lerp_(product, 1 - beta2)
            if due:
                for factor, out in zip(factors, roots, strict=True):
                    out.copy_(inverse_fourth_root(factor, group["matrix_eps"]))
            direction = roots[0] @ m @ roots[1]
            length = torch.linalg.matrix_norm(direction).clamp_min(torch.finfo(m.dtype).tiny)
            s.copy_(direction.mul_(torch.linalg.matrix_norm(s) / length))

        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(step, alpha=group["lr"])


def inverse_fourth_root(factor: Tensor, eps: float) -> Tensor:
    """Return (F + eps·λmax·I)^(−¼) of a symmetric positive semi-definite F, shape (n, n)."""
    values, vectors = eigenvectors(factor)
    values = values.clamp_min(0)
    shifted = (values + eps * values[-1]).clamp_min(1e-30)  # not 0, where F = 0
    root: Tensor = (vectors * shifted.pow(-0.25)) @ vectors.T
    return root


def blocks_of(tensor: Tensor, size: int) -> Iterator[Tensor]:
    """Yield the blocks of a tensor as a matrix, as views; none of fewer than two dimensions."""
    if tensor.ndim < 2:
        return
    for rows in torch.split(tensor.reshape(tensor.shape[0], -1), size, 0):
        yield from torch.split(rows, size, 1)


def _factors(block: Tensor) -> list[Tensor]:
    return [block.new_zeros(side, side) for side in block.shape]
