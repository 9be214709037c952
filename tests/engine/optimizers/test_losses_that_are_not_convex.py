"""Losses that are not convex in the outputs: every optimizer of ours stays finite, and learns."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.hessian import Hessian
from mlhf.optimizers.hessian_free import HessianFree
from mlhf.optimizers.mlhf.variants import MLHF

OPTIMIZERS = {
    "mlhf": MLHF,
    "paper": functools.partial(MLHF, variant="paper"),
    "hf": HessianFree,
    "hf_hessian": functools.partial(HessianFree, curvature=Hessian),
}


class _Each(nn.Module):
    """One network, or several, for each part of the input."""

    def __init__(self, *bodies):
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x):
        return tuple(self.bodies[i % len(self.bodies)](t) for i, t in enumerate(x))


def _mlp(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))


def _density(z, y):
    weights, mean, scale = z.split(5, -1)
    terms = weights.log_softmax(-1) - 0.5 * ((y - mean) * scale.exp()) ** 2 + scale
    return -torch.logsumexp(terms, -1).mean()


def _contrast(z, y):
    a, b = (F.normalize(t, dim=-1) for t in z)
    return F.cross_entropy(a @ b.T / 0.2, torch.arange(len(a)))


def _inverse(g):
    y = torch.rand(64, 1, generator=g)
    return y + 0.3 * torch.sin(6 * y) + 0.02 * torch.randn(64, 1, generator=g), y


def _noise(g):
    x = torch.randn(64, 8, generator=g)
    return x, x[:, :1].sin() + 0.1 * (1 + x[:, 1:2].abs()) * torch.randn(64, 1, generator=g)


def _triples(g):
    classes, centres = torch.randint(3, (32,), generator=g), 2 * torch.eye(3, 8)
    near, far = centres[classes], centres[(classes + 1) % 3]
    return tuple(c + torch.randn(32, 8, generator=g) for c in (near, near, far)), None


def _directions(g):
    x = torch.randn(64, 8, generator=g)
    return x, torch.tanh(x[:, :6] - x[:, 2:])


def _pairs(g):
    fixed = torch.Generator().manual_seed(0)
    return (torch.randn(5, 4, generator=fixed), torch.randn(5, 5, generator=fixed)), None


CASES = {  # (model, loss, batch)
    "infonce": (lambda: _Each(_mlp(4, 3), nn.Linear(5, 3)), _contrast, _pairs),
    "density": (lambda: _mlp(1, 15), _density, _inverse),
    "triplet": (lambda: _Each(_mlp(8, 6)), lambda z, y: F.triplet_margin_loss(*z), _triples),
    "cosine": (lambda: _mlp(8, 6), lambda z, y: 1 - F.cosine_similarity(z, y).mean(), _directions),
    "gaussian": (
        lambda: _mlp(8, 2),
        lambda z, y: F.gaussian_nll_loss(z[:, :1], y, z[:, 1:].exp()),
        _noise,
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_steps_stay_finite_and_the_loss_falls(name, optimizer):
    model, loss, batch = CASES[name]
    torch.manual_seed(3)
    model = model()
    opt = OPTIMIZERS[optimizer](model, loss)
    g = torch.Generator().manual_seed(9)
    losses = [float(opt.step(*batch(g)).loss) for _ in range(25)]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.1


@pytest.mark.parametrize("damping", ["fixed", "adam"])
def test_the_hessian_of_a_mixture_density_may_overflow(damping):
    """Fixed damping bounds no step: the loss jumps to thousands here, and comes back."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 15))
    optimizer = HessianFree(model, _density, damping, curvature=Hessian)
    generator = torch.Generator().manual_seed(9)
    losses = [float(optimizer.step(*_inverse(generator)).loss) for _ in range(60)]
    assert optimizer.skipped_steps == 0
    assert min(losses) < losses[0] - 0.5
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", [*OPTIMIZERS, "hf_hessian_fixed"])
def test_the_kink_of_a_norm_is_survived(name):
    """All rows of z start at 0, where the norm has no second derivative; its first is 0."""
    fixed = functools.partial(HessianFree, damping="fixed", curvature=Hessian)
    model = nn.Linear(8, 2)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    optimizer = {**OPTIMIZERS, "hf_hessian_fixed": fixed}[name](
        model, lambda z, y: (z.norm(dim=-1) * y).mean()
    )
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(16, 8, generator=generator), torch.randn(16, generator=generator)
    for _ in range(5):
        assert optimizer.step(x, y).skipped is None
    assert not any(p.any() for p in model.parameters())
    nn.init.constant_(model.bias, 0.1)  # off the kink
    for _ in range(10):
        assert optimizer.step(x, y.abs()).skipped is None
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_infonce_over_a_batch_of_48(name):
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(48, 3, generator=generator)
    x = tuple(torch.cat([common, torch.randn(48, k, generator=generator)], 1) for k in (1, 2))
    torch.manual_seed(3)
    model = _Each(_mlp(4, 8), nn.Linear(5, 8))
    optimizer = OPTIMIZERS[name](model, _contrast)
    losses = [float(optimizer.step(x, None).loss) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]
    assert optimizer.skipped_steps == 0
