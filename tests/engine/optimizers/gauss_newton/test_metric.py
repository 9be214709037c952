"""Natural gradients: a metric apart from the loss."""

import math

import pytest
import torch
from torch import nn

from mlhf import GaussNewton
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.vectors import flatten

SPINS, FIELD = 6, 1.0  # eight, as slowly as they take: bench/science/ising.py


class _Rbm(nn.Module):
    """log ψ of a restricted Boltzmann machine with real weights, which is positive."""

    def __init__(self, hidden=16):
        super().__init__()
        torch.manual_seed(0)
        self.visible = nn.Linear(SPINS, 1, bias=False)
        self.hidden = nn.Linear(SPINS, hidden)
        for p in self.parameters():
            nn.init.normal_(p, std=0.05)

    def forward(self, s):
        h = self.hidden(s)
        return self.visible(s).squeeze(-1) + (torch.logaddexp(h, -h)).sum(-1)


def _chain():
    """All configurations, each one's diagonal energy, and the indices of its single flips."""
    index = torch.arange(2**SPINS)
    spins = 1.0 - 2.0 * (index[:, None] >> torch.arange(SPINS) & 1).double()
    diagonal = -(spins * spins.roll(-1, 1)).sum(1)
    flips = index[:, None] ^ (1 << torch.arange(SPINS))
    return spins, diagonal, flips


def _exact(diagonal, flips):
    h = torch.diag(diagonal)
    for i in range(SPINS):
        h[torch.arange(len(h)), flips[:, i]] -= FIELD
    return float(torch.linalg.eigvalsh(h)[0])


def _energy(z, y):
    """⟨H⟩ of ψ = exp z over all configurations."""
    diagonal, flips = y
    p = torch.softmax(2 * z, 0)
    local = diagonal - FIELD * (z[flips] - z[:, None]).exp().sum(1)
    return (p * local).sum()


def _fisher(z, y):
    """Its Hessian is the covariance diag(p) − ppᵀ of the derivatives of log ψ."""
    return torch.logsumexp(2 * z, 0) / 4


def test_a_step_is_stochastic_reconfiguration_solved():
    model = _Rbm(3).double()
    spins, diagonal, flips = _chain()
    parameters = list(model.parameters())
    z = model(spins)
    j = torch.stack([flatten(torch.autograd.grad(v, parameters, retain_graph=True)) for v in z])
    p = torch.softmax(2 * z.detach(), 0)
    s = j.T @ (torch.diag(p) - p[:, None] * p) @ j
    gradient = flatten(torch.autograd.grad(_energy(z, (diagonal, flips)), parameters))
    damping = 0.3 * s.trace()
    d = torch.linalg.solve(s + damping * torch.eye(len(s)).double(), gradient)
    before = flatten(parameters).detach().clone()
    optimizer = GaussNewton(model, _energy, metric=_fisher, damping=0.3)
    result = optimizer.step(spins, (diagonal, flips))
    moved = before - flatten(parameters).detach()
    assert torch.allclose(moved, result.stats["step_length"] * d, rtol=1e-7, atol=1e-10)


def test_the_ground_state_of_an_ising_chain():
    model = _Rbm(12).double()
    spins, diagonal, flips = _chain()
    exact = _exact(diagonal, flips)
    optimizer = GaussNewton(model, _energy, metric=_fisher)
    for _ in range(150):
        result = optimizer.step(spins, (diagonal, flips))
        error = abs(float(result.loss) - exact) / abs(exact)
        if error < 1e-7:
            break
    assert error < 1e-7
    assert math.isfinite(error)


def test_what_no_metric_can_be_of_is_refused():
    model = nn.Linear(3, 1).double()
    x = torch.randn(20, 3).double()
    with pytest.raises(CurvatureError, match="no curvature"):
        GaussNewton(model, metric=lambda z, y: z.sum()).step(x, x[:, :1])
    with pytest.raises(CurvatureError, match=r"memory_bytes=100.*mlhf"):
        GaussNewton(model, metric=lambda z, y: z.square().sum(), memory_bytes=100).step(x, x[:, :1])
