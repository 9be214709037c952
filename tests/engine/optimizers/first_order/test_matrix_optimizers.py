"""Shampoo and SOAP against NumPy in float64; Muon's choice of parameters."""

import numpy as np
import pytest
import torch
from torch import nn

from mlhf.optimizers.first_order.shampoo import Shampoo, inverse_fourth_root
from mlhf.optimizers.registry import build

GRADIENTS = np.random.default_rng(0).normal(size=(7, 4, 3))
START = np.random.default_rng(1).normal(size=(4, 3))


class _Fixed(nn.Module):
    """A matrix whose gradient is what it is given, by the loss ⟨z, y⟩."""

    def __init__(self, shape=(4, 3)):
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(START.copy()).view(shape))

    def forward(self, x):
        return self.weight * x


def _run(name, params, shape=(4, 3)):
    model = _Fixed(shape)
    optimizer = build(name, params, model, lambda z, y: (z * y).sum())
    for gradient in GRADIENTS:
        optimizer.step(torch.ones(shape).double(), torch.from_numpy(gradient).view(shape))
    return model.weight.detach().numpy().reshape(4, 3)


def _root(matrix, eps):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag((np.maximum(values, 0) + eps * values.max()) ** -0.25) @ vectors.T


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1, 1)])
def test_shampoo(every, shape):
    w, m, v = START.copy(), np.zeros((4, 3)), np.zeros((4, 3))
    left, right = np.zeros((4, 4)), np.zeros((3, 3))
    for k, g in enumerate(GRADIENTS, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        left, right = 0.99 * left + 0.01 * g @ g.T, 0.99 * right + 0.01 * g.T @ g
        if (k - 1) % every == 0:
            roots = _root(left, 1e-4), _root(right, 1e-4)
        adam = m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.99**k)) + 1e-8)
        step = roots[0] @ m @ roots[1]
        step *= np.linalg.norm(adam) / np.linalg.norm(step)
        w = w * (1 - 0.05 * 0.1) - 0.05 * step
    params = {"lr": 0.05, "matrix_eps": 1e-4, "weight_decay": 0.1, "precondition_every": every}
    np.testing.assert_allclose(_run("shampoo", params, shape), w, rtol=1e-8)


def test_shampoos_blocks_are_parameters_of_their_own():
    whole = _run("shampoo", {"lr": 0.05, "block_size": 2})
    parameters = [
        nn.Parameter(torch.from_numpy(START.copy())[i : i + 2, j : j + 2].contiguous())
        for i in (0, 2)
        for j in (0, 2)
    ]
    optimizer = Shampoo(parameters, lr=0.05)
    for gradient in GRADIENTS:
        blocks = [gradient[i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)]
        for parameter, block in zip(parameters, blocks, strict=True):
            parameter.grad = torch.from_numpy(block.copy())
        optimizer.step()
    a, b, c, d = (p.detach().numpy() for p in parameters)
    np.testing.assert_allclose(whole, np.block([[a, b], [c, d]]), rtol=1e-10)


def test_the_root_of_nothing_is_finite():
    assert torch.isfinite(inverse_fourth_root(torch.zeros(3, 3), 1e-6)).all()


def test_soap():
    """Adam in the eigenbases of the running means of GGᵀ and GᵀG, kept by power iteration."""
    w, m, v = START.copy(), np.zeros((4, 3)), np.zeros((4, 3))
    b = 0.9
    first = GRADIENTS[0]
    left, right = (1 - b) * first @ first.T, (1 - b) * first.T @ first
    ql, qr = (np.linalg.eigh(f)[1][:, ::-1] for f in (left, right))
    for k, g in enumerate(GRADIENTS[1:], 1):  # the first gradient only sets the bases
        m, v = 0.8 * m + 0.2 * g, b * v + (1 - b) * (ql.T @ g @ qr) ** 2
        size = 0.05 * np.sqrt(1 - b**k) / (1 - 0.8**k)
        w = w - size * ql @ ((ql.T @ m @ qr) / (np.sqrt(v) + 1e-8)) @ qr.T
        w = w * (1 - 0.05 * 0.1)
        left, right = b * left + (1 - b) * g @ g.T, b * right + (1 - b) * g.T @ g
        order = np.argsort(-np.sum(ql * (left @ ql), 0)), np.argsort(-np.sum(qr * (right @ qr), 0))
        v = v[order[0]][:, order[1]]
        ql = np.linalg.qr((left @ ql)[:, order[0]])[0]
        qr = np.linalg.qr((right @ qr)[:, order[1]])[0]
    params = {"lr": 0.05, "beta1": 0.8, "beta2": b, "weight_decay": 0.1, "precondition_every": 1}
    # The library takes its QR decompositions in float32.
    np.testing.assert_allclose(_run("soap", params), w, rtol=1e-4)


def test_muon_gets_the_hidden_matrices_and_adamw_the_rest():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(5, 6),
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 3, 3),
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.LayerNorm(8),
        nn.Linear(8, 4),
    )
    before = [p.detach().clone() for p in model.parameters()]
    x, y = torch.randint(0, 5, (9,)), torch.randint(0, 4, (9,))
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), model.parameters())
    build("muon", {"lr": 0.01, "weight_decay": 0.0}, model).step(x, y)
    names = [name for name, _ in model.named_parameters()]
    for name, p, old, g in zip(names, model.parameters(), before, gradients, strict=True):
        step = (old - p.detach()) / 0.01
        if name in ("2.weight", "4.weight"):
            strong = torch.linalg.svdvals(g.flatten(1))
            strong = int((strong > 0.1 * strong[0]).sum())
            scale = 0.2 * max(g.flatten(1).shape) ** 0.5
            values = torch.linalg.svdvals(step.flatten(1))[:strong] / scale
            assert values.min() > 0.5  # close to orthogonal, where the gradient has a direction
            assert values.max() < 1.3
        else:  # Adam's first step is the gradient's sign
            where = g.abs() > 1e-6
            assert torch.allclose(step[where], g.sign()[where], atol=0.02)


def test_muon_follows_a_parameter_whose_memory_is_replaced():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    optimizer = build("muon", {}, model)
    model[0].weight.data = model[0].weight.data.clone()
    before = model[0].weight.detach().clone()
    optimizer.step(torch.randn(6, 4), torch.randint(0, 3, (6,)))
    assert not torch.equal(model[0].weight, before)
