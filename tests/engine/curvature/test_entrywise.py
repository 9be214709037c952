"""Values from which the outputs are computed entry by entry, and losses of independent outputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mlhf.curvature.entrywise import entrywise_nodes
from mlhf.curvature.ggn import GGN

AFTER = {
    "nothing": lambda h: h,
    "activations": lambda h: torch.sigmoid(F.softplus(h) * 2 - 1),
    "a reshaped part": lambda h: h.unsqueeze(0).transpose(1, 2)[:, 1:].flatten(1),
    "a residual of something else": lambda h: h + torch.ones(1, requires_grad=True).exp(),
}
MIXING = {
    "a softmax": lambda h: h.softmax(-1),
    "a sum": lambda h: h.sum(-1),
    "a gated unit": lambda h: F.glu(h),
    "a product of halves": lambda h: h[:, :2] * h[:, 2:],
    "a sum with itself": lambda h: h + h.flip(-1),
    "a norm": lambda h: F.layer_norm(h, (4,)),
    "a linear layer": lambda h: nn.Linear(4, 4)(h),
}


def _value():
    return nn.Linear(3, 4)(torch.randn(5, 3))


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
def test_a_value_before_entrywise_operations_is_found(after):
    h = _value()
    assert h.grad_fn in entrywise_nodes([after(h)])


@pytest.mark.parametrize("after", MIXING.values(), ids=MIXING)
def test_a_value_whose_entries_are_mixed_is_not(after):
    h = _value()
    assert h.grad_fn not in entrywise_nodes([after(h)])


def test_their_gauss_newton_matrix_is_diagonal_where_the_loss_hessian_is():
    for after in AFTER.values():
        h = _value().detach().requires_grad_()
        j = torch.autograd.functional.jacobian(lambda h, f=after: f(h).flatten(), h).flatten(1)
        g = j.T @ j
        torch.testing.assert_close(g, torch.diag(g.diagonal()))


@pytest.mark.parametrize(
    ("loss", "y", "diagonal"),
    [
        ("mse", torch.randn(6, 4), True),
        ("binary_cross_entropy", torch.rand(6, 4), True),
        (lambda z, y: F.huber_loss(z, y, delta=1.0), torch.randn(6, 4), True),
        (lambda z, y: (z.exp() - y * z).mean(), torch.rand(6, 4), True),
        ("cross_entropy", torch.randint(4, (6,)), False),
        (lambda z, y: (z - y).norm(dim=-1).mean(), torch.randn(6, 4), False),
        (lambda z, y: ((z - y).sum(-1)).square().mean(), torch.randn(6, 4), False),
    ],
    ids=["mse", "binary", "huber", "poisson", "cross-entropy", "norms", "sums"],
)
def test_losses_of_independent_outputs_are_known_by_their_hessian(loss, y, diagonal):
    torch.manual_seed(0)
    ggn = GGN(nn.Linear(3, 4), loss, torch.randn(6, 3), y)
    assert ggn.output_hessian_is_diagonal() is diagonal
