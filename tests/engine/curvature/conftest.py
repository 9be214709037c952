"""One dense oracle for every product: JᵀH_ℓJ in float64, built without the code under test."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Dense:
    matrix: Tensor
    gradient: Tensor
    loss: Tensor


def _function(loss: str, y: Tensor) -> Callable[[Tensor], Tensor]:
    if loss == "mse":
        return lambda z: F.mse_loss(z, y)
    return lambda z: F.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1))


def _dense(model: nn.Module, loss: str, x: Tensor, y: Tensor) -> Dense:
    """The model's buffers and torch's random state are as before afterwards."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    random = torch.get_rng_state()
    was = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    z = model(x)
    torch._C._set_mkldnn_enabled(was)
    torch.set_rng_state(random)
    rows = []
    for i in range(z.numel()):
        e = torch.zeros(z.numel(), dtype=z.dtype)
        e[i] = 1
        row = torch.autograd.grad(
            z,
            parameters,
            e.view_as(z),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        rows.append(torch.cat([r.to_dense().reshape(-1) for r in row]))
    with torch.no_grad():
        for name, b in model.named_buffers():
            b.copy_(buffers[name])
    jacobian = torch.stack(rows)
    flat = z.detach().reshape(-1)
    of_z = _function(loss, y)
    of_flat = lambda v: of_z(v.view_as(z))  # noqa: E731
    hessian = torch.autograd.functional.hessian(of_flat, flat)
    gradient = torch.autograd.functional.jacobian(of_flat, flat)
    return Dense(jacobian.T @ hessian @ jacobian, jacobian.T @ gradient, of_flat(flat))


@pytest.fixture
def dense() -> Callable[[nn.Module, str, Tensor, Tensor], Dense]:
    return _dense
