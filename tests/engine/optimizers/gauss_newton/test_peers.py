"""Peers for least squares against their formulas, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.vectors import flatten
from mlhf.optimizers.gauss_newton.peers import DenseLevenbergMarquardt, EngdW, Spring
from mlhf.optimizers.registry import build


def _problem(n=12):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(n, 2).double()
    return model, x, torch.sin(x.sum(1, keepdim=True))


def _system(model, x, y):
    """Return J and r of ℓ = ½‖r‖², by one backward pass a row."""
    scale = (2 / len(x)) ** 0.5
    z = model(x).reshape(-1)
    rows = [flatten(torch.autograd.grad(v, list(model.parameters()), retain_graph=True)) for v in z]
    return scale * torch.stack(rows).detach(), scale * (z - y.reshape(-1)).detach()


def _theta(model):
    return flatten(list(model.parameters())).detach().clone()


@pytest.mark.parametrize("n", [6, 40])  # 17 parameters: in sample space, and in theirs
def test_spring_projects_its_momentum(n):
    model, x, y = _problem(n)
    lam, mu = 0.1, 0.9
    optimizer = Spring(model, damping=lam, momentum=mu, lr=0.3, norm_constraint=None)
    last = torch.zeros_like(_theta(model))
    for _ in range(3):
        j, r = _system(model, x, y)
        matrix = j.T @ j + lam * torch.eye(j.shape[1]).double()
        phi = torch.linalg.solve(matrix, j.T @ r + lam * mu * last)
        expected, last = _theta(model) - 0.3 * phi, phi
        optimizer.step(x, y)
        assert torch.allclose(_theta(model), expected, rtol=1e-9, atol=1e-12)


def test_spring_bounds_a_steps_norm():
    model, x, y = _problem()
    before = _theta(model)
    Spring(model, lr=1.0, norm_constraint=1e-6).step(x, y)
    assert (_theta(model) - before).norm() == pytest.approx(1e-3, rel=1e-6)


def test_engd_w_takes_the_best_length_of_its_grid():
    model, x, y = _problem()
    j, r = _system(model, x, y)
    d = j.T @ torch.linalg.solve(j @ j.T + 1e-4 * torch.eye(len(r)).double(), r)
    before, values = _theta(model), []
    for k in range(31):
        torch.nn.utils.vector_to_parameters(before - 0.5**k * d, model.parameters())
        values.append(F.mse_loss(model(x), y).item())
    torch.nn.utils.vector_to_parameters(before, model.parameters())
    result = EngdW(model, damping=1e-4).step(x, y)
    assert result.stats["step_length"] == 0.5 ** values.index(min(values))
    assert F.mse_loss(model(x), y).item() == pytest.approx(min(values), rel=1e-9)


def test_levenberg_marquardts_damping_follows_the_gain_ratio():
    model, x, y = _problem()
    optimizer = DenseLevenbergMarquardt(model, tau=1e-2)
    j, r = _system(model, x, y)
    scale = 1e-2 * float(j.square().sum()) / j.shape[1]
    d = torch.linalg.solve(j.T @ j + scale * torch.eye(j.shape[1]).double(), j.T @ r)
    expected = _theta(model) - d
    first = optimizer.step(x, y)
    assert torch.allclose(_theta(model), expected, rtol=1e-9, atol=1e-12)
    gain = float(first.loss) - F.mse_loss(model(x), y).item()
    ratio = gain / (0.5 * float(d @ (scale * d + j.T @ r)))
    assert first.stats["reduction_ratio"] == pytest.approx(ratio, rel=1e-6)
    second = optimizer.step(x, y)
    assert second.stats["damping"] == pytest.approx(
        scale * max(1 / 3, 1 - (2 * ratio - 1) ** 3), rel=1e-9
    )


@pytest.mark.parametrize("name", ["lm", "lbfgs", "engd_w", "gauss_newton"])
def test_they_fit_to_many_digits(name):
    model, x, y = _problem(10)
    optimizer = build(name, {}, model, "mse")
    for _ in range(60):
        optimizer.step(x, y)
    assert F.mse_loss(model(x), y) < 1e-7


def test_lbfgs_is_torchs():
    model, x, y = _problem()
    other, _, _ = _problem()
    theirs = torch.optim.LBFGS(
        other.parameters(), max_iter=20, history_size=10, line_search_fn="strong_wolfe",
        tolerance_grad=0, tolerance_change=0,
    )  # fmt: skip

    def closure():
        theirs.zero_grad()
        loss = F.mse_loss(other(x), y)
        loss.backward()
        return loss

    optimizer = build("lbfgs", {}, model, "mse")
    for _ in range(3):
        optimizer.step(x, y)
        theirs.step(closure)
    assert torch.allclose(_theta(model), _theta(other), rtol=1e-9, atol=1e-12)
