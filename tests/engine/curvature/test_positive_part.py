"""The positive part of a loss's Hessian in the outputs, against its eigenvalues."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.ggn import GGN
from mlhf.curvature.positive_part import known_convex, positive_part
from tests.engine.curvature.cases import D, assert_close, flat, split


def _density(z, y):
    """The negative log-likelihood of a mixture of three Gaussians."""
    weights, mean, scale = z.split(3, -1)
    terms = weights.log_softmax(-1) - 0.5 * ((y - mean) * scale.exp()) ** 2 + scale
    return -torch.logsumexp(terms, -1).mean()


def _contrast(z, y):
    a, b = (F.normalize(t, dim=-1) for t in z)
    return F.cross_entropy(a @ b.T / 0.2, torch.arange(len(a)))


def _rows(shape):
    return torch.randn(shape, dtype=D)


CONVEX = {  # (loss, outputs, target, whether its form says so)
    "cross_entropy": (F.cross_entropy, [(6, 3)], torch.tensor([0, 1, 2, 0, 1, 2]), True),
    "cross_entropy_2d": (F.cross_entropy, [(2, 3, 2)], torch.tensor([[0, 1], [2, 0]]), True),
    "positions": (
        lambda z, y: F.cross_entropy(z.reshape(-1, 3), y.reshape(-1), ignore_index=0),
        [(2, 2, 3)],
        torch.tensor([[0, 1], [2, 0]]),
        True,
    ),
    "mse": (F.mse_loss, [(6, 3)], torch.zeros(6, 3, dtype=D), True),
    "logistic": (F.binary_cross_entropy_with_logits, [(6,)], torch.full((6,), 0.3, dtype=D), True),
    "two": (
        lambda z, y: F.cross_entropy(z[0], y) + z[1].square().mean(),
        [(3, 3), (3, 2)],
        torch.tensor([0, 1, 2]),
        True,
    ),
    "poisson": (lambda z, y: (z.exp() - z).mean(), [(6, 3)], None, False),
    "smoothed": (
        lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
        [(3, 3)],
        torch.tensor([0, 1, 2]),
        True,
    ),
    "squares": (
        lambda z, y: (z[0] - 2 * z[1][:, :3] - y).square().mean() + z[1].sum() / 7,
        [(3, 3), (3, 4)],
        torch.ones(3, 3),
        True,
    ),
    "scaled": (
        lambda z, y: 0.1 * F.cross_entropy(z, y) / 3,
        [(3, 3)],
        torch.tensor([0, 1, 2]),
        True,
    ),
}
NOT_CONVEX = {
    "density": (_density, [(20, 9)], 0.5),
    "gaussian": (lambda z, y: F.gaussian_nll_loss(z[0], z[0] * 0, z[1].exp()), [(9, 3)] * 2, None),
    "triplet": (lambda z, y: F.triplet_margin_loss(*z, margin=5.0), [(20, 3)] * 3, None),
    "cosine": (lambda z, y: 1 - F.cosine_similarity(z, y).mean(), [(20, 6)], torch.ones(6)),
    "contrast": (_contrast, [(5, 3), (5, 3)], None),
    "sequence": (_density, [(4, 10, 9)], 0.5),
    "elements": (lambda z, y: z.sin().sum(), [(40, 3)], None),
    "scalar": (lambda z, y: -z.square(), [()], None),
    "divided": (lambda z, y: (1 / z).mean(), [(6, 3)], None),
    "product": (lambda z, y: (z[:, 0] * z[:, 1]).mean(), [(6, 2)], None),
    "negated": (lambda z, y: -0.1 * F.mse_loss(z, y), [(6, 3)], torch.ones(6, 3)),
    "norm": (lambda z, y: (z.norm(dim=-1) * y).mean(), [(6, 2)], torch.linspace(-1, 1, 6)),
}


class _Outputs(nn.Module):
    """Its parameters are its outputs, so that J is the identity."""

    def __init__(self, shapes):
        super().__init__()
        torch.manual_seed(0)
        self.z = nn.ParameterList([nn.Parameter(_rows(shape)) for shape in shapes])

    def forward(self, x):
        z = tuple(p.clone() for p in self.z)
        return z[0] if len(z) == 1 else z


def _matrices(loss, shapes, y, **options):
    """Return H by autograd and the GGN's own of the same outputs."""
    model = _Outputs(shapes)
    value = loss(model(None), y)
    gradient = torch.autograd.grad(value, list(model.z), create_graph=True)
    size = sum(p.numel() for p in model.z)
    eye = torch.eye(size, dtype=D)
    exact = torch.stack(
        [
            flat(
                torch.autograd.grad(
                    gradient, list(model.z), split(e, model), retain_graph=True, allow_unused=True,
                    materialize_grads=True,
                )
            )
            for e in eye
        ]
    )  # fmt: skip
    ggn = GGN(model, loss, None, y, **options)
    return exact, torch.stack([flat(ggn.product(split(e, model))) for e in eye])


@pytest.mark.parametrize("name", CONVEX)
def test_convex_losses_keep_their_hessian_bit_for_bit(name):
    loss, shapes, y, known = CONVEX[name]
    exact, found = _matrices(loss, shapes, y)
    _, as_is = _matrices(loss, shapes, y, indefinite="exact")
    assert torch.equal(found, as_is)
    assert_close(found, exact)
    model = _Outputs(shapes)
    assert known_convex(loss(tuple(model.z) if len(shapes) > 1 else model.z[0], y)) == known


@pytest.mark.parametrize("name", NOT_CONVEX)
def test_others_have_its_positive_part(name):
    loss, shapes, y = NOT_CONVEX[name]
    exact, found = _matrices(loss, shapes, y)
    eigenvalues, vectors = torch.linalg.eigh(exact)
    assert eigenvalues[0] < 0
    assert_close(found, (vectors * eigenvalues.clamp_min(0)) @ vectors.T)
    _, magnitude = _matrices(loss, shapes, y, indefinite="magnitude")
    assert_close(magnitude, (vectors * eigenvalues.abs()) @ vectors.T)
    assert_close(_matrices(loss, shapes, y, indefinite="exact")[1], exact)


def test_a_large_hessian_without_blocks_loses_its_most_negative_eigenvalues():
    exact, found = _matrices(_contrast, [(16, 8), (16, 8)], None)
    lowest = torch.linalg.eigvalsh(exact)[0]
    assert (exact - exact.T).abs().max() < 1e-12
    assert (found - found.T).abs().max() < 1e-12
    assert torch.linalg.eigvalsh(found)[0] > lowest
    removed = torch.linalg.eigvalsh(found - exact)
    assert removed[0] > -1e-12  # what is added is positive semi-definite
    assert removed[-1] > 0.8 * -lowest
    _, shifted = _matrices(_contrast, [(16, 8), (16, 8)], None, indefinite="magnitude")
    assert torch.linalg.eigvalsh(shifted)[0] > 0.1 * lowest


def test_what_is_not_finite_counts_as_zero():
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    x, y = torch.randn(4, 3), torch.tensor([1.0, -1.0, 2.0, 0.5])
    ggn = GGN(model, lambda z, y: (z.norm(dim=-1) * y).mean(), x, y)
    product = ggn.product([torch.ones_like(p) for p in model.parameters()])
    assert all(torch.equal(t, torch.zeros_like(t)) for t in product)


def test_probes_draw_no_random_numbers_of_the_callers():
    before = torch.get_rng_state()
    h = torch.diag(torch.tensor([1.0, -1.0]))
    found = positive_part(lambda u: [h @ u[0]], [torch.zeros(2)])([torch.ones(2)])
    assert torch.equal(found[0], torch.tensor([1.0, 0.0]))
    assert torch.equal(torch.get_rng_state(), before)
