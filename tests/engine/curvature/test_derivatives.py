"""Derivatives in the input against autograd, in float64."""

from functools import partial as partial_of

import pytest
import torch
from torch import nn

from mlhf.curvature.derivatives import directional, gradient, jet, laplacian, partial
from mlhf.curvature.forward_pass import evaluated
from mlhf.curvature.hooks import register_reading
from mlhf.curvature.residuals import Field


class _Residual(nn.Module):
    """A network of another form, so that no rule for chains applies."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + torch.sin(x.sum(-1, keepdim=True))


def _chain(activation=nn.Tanh, outputs=1, d=3):
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(7, 7, bias=False), activation())
    return nn.Sequential(
        nn.Linear(d, 7), activation(), inner, nn.Linear(7, outputs)
    ).double()  # fmt: skip


CHAINS = [nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.Mish]


@pytest.mark.parametrize("make", [*CHAINS, lambda: None])
def test_the_laplacian_is_the_hessians_trace(make):
    network = _Residual(_chain()) if make() is None else _chain(make)
    x = torch.randn(3, dtype=torch.float64)
    exact = torch.autograd.functional.hessian(lambda t: network(t[None]).squeeze(), x).trace()
    assert torch.allclose(laplacian(Field(network), x), exact, rtol=1e-12, atol=1e-12)


def test_it_maps_over_points_and_differentiates_in_parameters():
    network = _chain(outputs=2)
    points = torch.randn(4, 3, dtype=torch.float64)
    found = torch.func.vmap(lambda x: laplacian(Field(network), x))(points)
    assert found.shape == (4, 2)
    exact = torch.stack(
        [
            torch.stack([
                torch.autograd.functional.hessian(
                    lambda t, i=i: network(t[None])[0, i], x, create_graph=True
                ).trace()
                for i in range(2)
            ])
            for x in points
        ]
    )  # fmt: skip
    assert torch.allclose(found, exact, rtol=1e-12, atol=1e-12)
    parameters = list(network.parameters())[:-1]  # the last bias has no part in it
    mine, theirs = (torch.autograd.grad(t.square().sum(), parameters) for t in (found, exact))
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-12)


def test_derivatives_along_a_direction_are_autograds():
    network, x = _chain(), torch.randn(3, dtype=torch.float64)
    u = Field(network)
    v = torch.randn(3, dtype=torch.float64)

    def along(t):
        return network((x + t * v)[None]).squeeze()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = along(t)
    for order in (1, 2, 3):
        (value,) = torch.autograd.grad(value, t, create_graph=True)
        assert torch.allclose(directional(u, x, v, order), value, rtol=1e-12, atol=1e-12)
    exact = torch.autograd.functional.jacobian(lambda p: network(p[None]).squeeze(), x)
    assert torch.allclose(gradient(u, x), exact, rtol=1e-12)
    second = torch.autograd.functional.hessian(lambda p: network(p[None]).squeeze(), x)
    assert torch.allclose(partial(u, x, 1), exact[1], rtol=1e-12)
    assert torch.allclose(partial(u, x, 2, 2), second[2, 2], rtol=1e-12)
    with pytest.raises(ValueError, match="order=0"):
        partial(u, x, 0, 0)


class _ByAutograd(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = _chain(d=1)

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.network(x).sum(), x, create_graph=True)[0]


def test_a_network_that_calls_autograd_is_evaluated_without_a_graph():
    model, x = _ByAutograd(), torch.randn(4, 1, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(2):
            z = evaluated(model, x)
            assert not z.requires_grad
    assert torch.equal(z, model(x).detach())
    with pytest.raises(RuntimeError, match="mat1"):
        evaluated(model, x.expand(4, 3))


@pytest.mark.parametrize("chain", [True, False])
@pytest.mark.parametrize("second", [(0, 1, 2), (2, 0), ()])
def test_a_jet_is_value_gradient_and_pure_second_derivatives(chain, second):
    network = _chain() if chain else _Residual(_chain())
    x = torch.randn(3, dtype=torch.float64)

    def u(t):
        return network(t[None]).squeeze()

    hessian = torch.autograd.functional.hessian(u, x)
    found, total = (jet(Field(network), x, second, summed=s) for s in (False, True))
    assert torch.allclose(found.value, u(x), rtol=1e-12)
    assert torch.allclose(found.first, torch.autograd.functional.jacobian(u, x), rtol=1e-12)
    assert torch.allclose(found.second, hessian.diagonal()[list(second)], rtol=1e-12, atol=1e-13)
    assert torch.allclose(total.second, found.second.sum(), rtol=1e-12, atol=1e-13)


def test_hooks_of_a_user_are_heeded_and_ours_change_no_bit():
    network, x = _chain(), torch.randn(3, dtype=torch.float64)
    plain = laplacian(Field(network), x)
    (ours,) = register_reading([partial_of(network[0].register_forward_hook, lambda *_: None)])
    assert torch.equal(laplacian(Field(network), x), plain)
    theirs = network[0].register_forward_hook(lambda _, __, output: 2 * output)
    hooked = laplacian(Field(network), x)
    theirs.remove()
    ours.remove()
    with torch.no_grad():
        network[0].weight *= 2
        network[0].bias *= 2
    assert torch.allclose(hooked, laplacian(Field(network), x), rtol=1e-12)
    assert not torch.allclose(hooked, plain)
