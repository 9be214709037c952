"""Derivatives of products in the vector."""

import pytest
import torch
from torch import nn

from mlhf.curvature.fisher import EmpiricalFisher
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hessian import Hessian
from mlhf.curvature.microbatches import MicrobatchCurvature
from tests.engine.curvature.cases import D, assert_close, flat


@pytest.mark.parametrize("kind", [GGN, Hessian, EmpiricalFisher, MicrobatchCurvature])
def test_the_backward_of_a_product_is_a_product_at_every_order(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).to(D)
    at = kind(model, "cross_entropy", torch.randn(6, 3, dtype=D), torch.randint(0, 2, (6,)))
    v = [torch.randn_like(p).requires_grad_() for p in model.parameters()]
    gv = at.product(v)
    (half,) = (0.5 * sum((a * b).sum() for a, b in zip(v, gv, strict=True)),)
    first = torch.autograd.grad(half, v, create_graph=True)  # of ½vᵀGv: Gv
    assert_close(flat(first), flat(gv))
    w = [torch.randn_like(t) for t in v]
    second = torch.autograd.grad(first, v, w)  # of ⟨w, Gv⟩: Gw
    assert_close(flat(second), flat(at.product(w)))
    assert all(p.grad is None for p in model.parameters())


def test_no_graph_is_made_where_none_is_wanted():
    model = nn.Linear(3, 2)
    ggn = GGN(model, "cross_entropy", torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert not any(t.requires_grad for t in ggn.product(ggn.gradient))
    with torch.no_grad():
        v = [torch.ones_like(p).requires_grad_() for p in model.parameters()]
        assert not any(t.requires_grad for t in ggn.product(v))
