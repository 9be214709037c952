"""The problems: networks, points and exact solutions, in float64 or float32."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlhf import Residuals
from mlhf.curvature.derivatives import laplacian, partial

Batch = tuple[Any, Any]
Function = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One column of the table.

    Attributes:
        model: What optimizers train.
        loss: Its loss.
        batch: Draws a step's points.
        error: The relative L2 error of the network on points of a test.
    """

    model: nn.Module
    loss: Any
    batch: Callable[[torch.Generator], Batch]
    error: Callable[[], float]


def mlp(sizes: list[int], dtype: torch.dtype) -> nn.Sequential:
    """Return layers of these sizes with tanh between them."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(a, b), *([nn.Tanh()] if i < len(sizes) - 2 else [])]
    return nn.Sequential(*layers).to(dtype)


def relative(network: nn.Module, x: Tensor, exact: Tensor) -> Callable[[], float]:
    """Return what measures a network's relative L2 error at x."""

    def error() -> float:
        with torch.no_grad():
            return float((network(x).reshape(-1) - exact).norm() / exact.norm())

    return error


def poisson(d: int, dtype: torch.dtype) -> Problem:
    """-Δu = f on the unit cube; u = ∏ sin πxᵢ in two dimensions, Σ sin πxᵢ in others."""
    network = mlp([d, 32, 32, 1] if d == 2 else [d, 32, 32, 32, 1], dtype)

    def exact(x: Tensor) -> Tensor:
        s = torch.sin(math.pi * x)
        return s.prod(-1) if d == 2 else s.sum(-1)

    def inside(u: Function, x: Tensor) -> Tensor:
        return laplacian(u, x) + math.pi**2 * (d if d == 2 else 1) * exact(x)

    def boundary(u: Function, x: Tensor) -> Tensor:
        return u(x) - exact(x)

    def batch(generator: torch.Generator) -> Batch:
        edge = torch.rand(120, d, generator=generator, dtype=dtype)
        side = torch.arange(120)
        edge[side, side % d] = (side // d % 2).to(dtype)
        x = torch.rand(900, d, generator=generator, dtype=dtype)
        return {"inside": x, "boundary": edge}, None

    model = Residuals(network, {"inside": inside, "boundary": boundary}, {"boundary": 100.0})
    x = torch.rand(4000, d, generator=torch.Generator().manual_seed(9), dtype=dtype)
    return Problem(model, model.loss, batch, relative(network, x, exact(x)))


def cole_hopf(t: Array, x: Array, nu: float, nodes: int = 100) -> Array:
    """Return the solution of Burgers' equation from -sin πx, by Cole and Hopf's transform."""
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    shift = x[..., None] - np.sqrt(4 * nu * t)[..., None] * z
    f = np.exp(-np.cos(np.pi * shift) / (2 * np.pi * nu) + 1 / (2 * np.pi * nu) - 1 / (np.pi * nu))
    found: Array = -(weights * np.sin(np.pi * shift) * f).sum(-1) / (weights * f).sum(-1)
    return found


def burgers(dtype: torch.dtype) -> Problem:
    """u_t + u·u_x = ν u_xx, u(0, x) = -sin πx, ν = 0.1/π; by Cole and Hopf's transform."""
    nu = 0.1 / math.pi
    network = mlp([2, 20, 20, 20, 1], dtype)

    def inside(u: Function, x: Tensor) -> Tensor:
        return partial(u, x, 0) + u(x) * partial(u, x, 1) - nu * partial(u, x, 1, 2)

    def value(u: Function, x: Tensor, y: Tensor) -> Tensor:
        return u(x) - y

    def batch(generator: torch.Generator) -> Batch:
        x = torch.rand(900, 2, generator=generator, dtype=dtype)
        x[:, 1] = 2 * x[:, 1] - 1
        edge = torch.rand(120, 2, generator=generator, dtype=dtype)
        edge[:, 1] = 2 * edge[:, 1] - 1
        edge[:60, 0] = 0
        edge[60:90, 1], edge[90:, 1] = -1, 1
        y = torch.where(edge[:, 0] == 0, -torch.sin(math.pi * edge[:, 1]), 0.0)
        return {"inside": x, "value": (edge, y)}, None

    model = Residuals(network, {"inside": inside, "value": value}, {"value": 10.0})
    t, x = np.meshgrid(np.linspace(0.05, 1, 20), np.linspace(-0.98, 0.98, 50), indexing="ij")
    exact = cole_hopf(t, x, nu)
    points = torch.tensor(np.stack([t.ravel(), x.ravel()], 1), dtype=dtype)
    return Problem(
        model,
        model.loss,
        batch,
        relative(network, points, torch.tensor(exact.ravel(), dtype=dtype)),
    )


def surrogate(dtype: torch.dtype) -> Problem:
    """A smooth function of four variables, 1,000 values of it."""
    network = mlp([4, 32, 32, 1], dtype)
    x = torch.rand(5000, 4, generator=torch.Generator().manual_seed(9), dtype=dtype) * 2 - 1
    y = torch.exp(-x.square().sum(1) / 2) * torch.sin(3 * x[:, 0] + x[:, 1] * x[:, 2]) + x[:, 3]

    def batch(generator: torch.Generator) -> Batch:
        return x[:1000], y[:1000, None]

    return Problem(network, "mse", batch, relative(network, x[1000:], y[1000:]))


PROBLEMS: dict[str, Callable[[torch.dtype], Problem]] = {
    "poisson2": lambda dtype: poisson(2, dtype),
    "poisson5": lambda dtype: poisson(5, dtype),
    "burgers": burgers,
    "surrogate": surrogate,
}
TABLE = list(PROBLEMS)
PROBLEMS |= {f"poisson{d}": lambda dtype, d=d: poisson(d, dtype) for d in (10, 100)}  # type: ignore[misc]
