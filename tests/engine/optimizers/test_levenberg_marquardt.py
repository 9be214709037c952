"""Damping that follows the ratio of actual to predicted reduction."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.ggn import GGN
from mlhf.optimizers.hessian_free import HessianFree
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt


def _network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)
    )
    return model, torch.randn(40, 6), torch.randint(0, 3, (40,))


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [
        (0.9, 0.5),
        (0.75, 1.0),
        (0.5, 1.0),
        (0.25, 1.0),
        (0.1, 3.0),
        (-1.0, 3.0),
        (float("nan"), 3.0),
    ],
)
def test_the_rule(ratio, factor):
    damping = LevenbergMarquardt(2.0, 0.5, 3.0, (1e-3, 1e3))
    assert damping.update(torch.zeros(3))[0] == 2.0
    found = damping.adapt(torch.tensor(ratio * 4), torch.tensor(4.0))
    assert float(found) == pytest.approx(ratio, nan_ok=True)
    assert float(damping.scale) == pytest.approx(2.0 * factor)


def test_it_stays_within_its_bounds():
    damping = LevenbergMarquardt(2.0, 0.1, 10.0, (1.0, 5.0))
    damping.update(torch.zeros(3))
    damping.adapt(torch.tensor(1.0), torch.tensor(1.0))
    assert damping.scale == 1.0
    damping.adapt(torch.tensor(-1.0), torch.tensor(1.0))
    assert damping.scale == 5.0


def test_the_least_damping_falls_with_the_gradient():
    """Without noise gradients vanish, and with a fixed bound the last digits were not reached."""
    damping = LevenbergMarquardt(2.0, 0.1, 10.0, (1.0, 1e6))
    for k in range(150):
        damping.update(torch.full((3,), 10.0 ** -min(k, 3), dtype=torch.float64))
        damping.adapt(torch.tensor(1.0).double(), torch.tensor(1.0).double())
    assert float(damping.scale) == pytest.approx(1e-3, rel=0.1)
    again = LevenbergMarquardt(2.0, 0.1, 10.0, (1.0, 1e6))
    again.load_state_dict(damping.state_dict(), torch.zeros(1).double())
    again.update(torch.ones(3).double())
    again.adapt(torch.tensor(1.0).double(), torch.tensor(1.0).double())
    assert 0.09 < float(again.scale) < 0.2  # gradients grew again
    again.load_state_dict({"scale": torch.tensor(1.0)}, torch.zeros(1).double())  # an older state


def test_a_solve_is_as_exact_for_a_loss_of_any_scale():
    """With an absolute tolerance solves of a small loss ended before they began."""
    torch.manual_seed(0)
    x, y = torch.randn(30, 4).double(), torch.randn(30, 1).double()
    residuals = []
    for scale in (1.0, 1e-12):
        model = nn.Linear(4, 1).double()
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        optimizer = HessianFree(
            model, lambda z, t, s=scale: s * F.mse_loss(z, t), "fixed", iterations=10
        )
        optimizer.damping.scale = 1e-3 * scale
        optimizer.step(x, y)
        residuals.append(F.mse_loss(model(x), y).item())
    assert residuals[1] == pytest.approx(residuals[0], rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_the_ratio_is_that_of_the_same_batch_and_mask(decay):
    """Recomputed from outside: the objective before and after, under the same random draws."""
    model, x, y = _network()
    model.double()
    x = x.double()
    before = copy.deepcopy(model)
    optimizer = HessianFree(
        model, "cross_entropy", LevenbergMarquardt(1.0), weight_decay=decay, iterations=30
    )
    torch.manual_seed(3)
    result = optimizer.step(x, y)

    def objective(network):
        torch.manual_seed(3)
        norm = sum(p.square().sum() for p in network.parameters())
        return F.cross_entropy(copy.deepcopy(network)(x), y) + 0.5 * decay * norm

    actual = float((objective(before) - objective(model)).detach())
    torch.manual_seed(3)
    gradient = GGN(before, "cross_entropy", x, y).gradient
    pairs = zip(gradient, before.parameters(), strict=True)
    b = torch.cat([(g + decay * p.detach()).reshape(-1) for g, p in pairs])
    d = optimizer._direction
    # 30 iterations solve (G + ηI + λI)d = b, so dᵀ(G + ηI)d = bᵀd − λ‖d‖².
    predicted = float(b @ d - 0.5 * (b @ d - 1.0 * d @ d))
    assert float(result.stats["reduction_ratio"]) == pytest.approx(actual / predicted, rel=1e-5)


def test_reevaluating_moves_neither_statistics_nor_random_state():
    model, x, y = _network()
    plain = copy.deepcopy(model)
    torch.manual_seed(3)
    plain(x)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    HessianFree(model, damping=LevenbergMarquardt()).step(x, y)
    assert torch.equal(torch.get_rng_state(), after)
    for mine, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_step_that_raises_the_loss_is_rejected():
    model, x, y = _network()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = HessianFree(model, damping=LevenbergMarquardt(0.5), lr=1000.0)
    result = optimizer.step(x, y)
    assert result.stats["reduction_ratio"] <= 0
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)
    assert optimizer._direction.abs().max() == 0
    assert float(optimizer.damping.scale) == pytest.approx(1.5)


def test_a_loss_that_is_not_finite_is_survived():
    model, x, y = _network()

    def loss(z, y):
        value = F.cross_entropy(z, y)
        return value / (z.detach().abs().max() < 3.0).to(z)  # infinite far away

    optimizer = HessianFree(model, loss, LevenbergMarquardt(0.1, increase=10.0), lr=300.0)
    losses = [float(optimizer.step(x, y).loss) for _ in range(12)]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert float(optimizer.damping.scale) > 1.0
    assert losses[0] < 3
