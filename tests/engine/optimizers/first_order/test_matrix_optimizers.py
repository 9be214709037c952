"""Matrix optimizers against NumPy in float64; Muon's choice of parameters."""

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


def _library_orthogonal(matrix):
    """Muon's Newton-Schulz iteration in float64, and its coefficients."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x


def test_normuon_evens_out_the_rows_of_muons_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 6, bias=False)).double()
    optimizer = build("normuon", {"lr": 0.01, "weight_decay": 0.0, "momentum": 0.9}, model)
    before = [p.detach().clone() for p in model.parameters()]
    x, y = torch.randn(40, 3).double(), torch.randint(0, 6, (40,))
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), model.parameters())
    optimizer.step(x, y)
    hidden, last = (
        ((old - p.detach()) / 0.01).numpy()
        for old, p in zip(before, model.parameters(), strict=True)
    )
    sizes = np.sqrt((hidden**2).mean(1))
    np.testing.assert_allclose(sizes, 0.2, rtol=1e-3)  # the first step's rows are all as large
    direction = _library_orthogonal(gradients[0].numpy())
    direction *= 0.2 / np.sqrt((direction**2).mean(1, keepdims=True))
    np.testing.assert_allclose(hidden, direction, atol=0.02)  # the library iterates in bfloat16
    np.testing.assert_allclose(last, np.sign(gradients[1].numpy()), atol=0.01)  # AdamW's


def test_ademamix_adds_the_slow_mean():
    w = START.copy()
    fast, slow, square = np.zeros((3, 4, 3))
    for k, g in enumerate(GRADIENTS, 1):
        fast, slow, square = 0.8 * fast + 0.2 * g, 0.99 * slow + 0.01 * g, 0.9 * square + 0.1 * g**2
        step = (fast / (1 - 0.8**k) + 5 * slow) / (np.sqrt(square / (1 - 0.9**k)) + 1e-8)
        w = w * (1 - 0.05 * 0.1) - 0.05 * step
    params = {"lr": 0.05, "beta1": 0.8, "beta2": 0.9, "beta3": 0.99, "weight_decay": 0.1}
    np.testing.assert_allclose(_run("ademamix", params), w, rtol=1e-8)


def test_splus_steps_by_signs_in_shampoos_basis_and_averages_the_weights():
    w, m, average = START.copy(), np.zeros((4, 3)), np.zeros((4, 3))
    left, right = np.zeros((4, 4)), np.zeros((3, 3))
    ql, qr = np.eye(4), np.eye(3)
    for k, g in enumerate(GRADIENTS, 1):
        m = 0.8 * m + 0.2 * g
        left, right = 0.9 * left + 0.1 * g @ g.T, 0.9 * right + 0.1 * g.T @ g
        w = w - 0.05 * 2 / 7 * ql @ np.sign(ql.T @ m @ qr) @ qr.T
        if k == 1 or k % 2 == 0:
            ql, qr = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
        average = 0.9 * average + 0.1 * w
    model = _Fixed()
    params = {"lr": 0.05, "beta1": 0.8, "beta2": 0.9, "precondition_every": 2}
    params |= {"weight_decay": 0.0, "average_decay": 0.9}
    optimizer = build("splus", params, model, lambda z, y: (z * y).sum())
    for gradient in GRADIENTS:
        optimizer.step(torch.ones(4, 3).double(), torch.from_numpy(gradient))
    np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-4)
    optimizer.eval_mode()
    expected = average / (1 - 0.9 ** len(GRADIENTS))
    np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-4)
    optimizer.train_mode()
    np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-4)


def test_psgds_factors_come_to_whiten_the_gradient():
    """Of gradients with covariance L ⊗ R, steps at last have an even size in all directions."""
    torch.manual_seed(0)
    generator = np.random.default_rng(2)
    scales = np.array([[8.0], [2.0], [0.5], [0.1]])
    model = _Fixed()
    params = {"lr": 1e-6, "momentum": 0.0}
    optimizer = build("psgd_kron", params, model, lambda z, y: (z * y).sum())
    squares = []
    for _ in range(400):
        gradient = scales * generator.normal(size=(4, 3))
        before = model.weight.detach().clone()
        optimizer.step(torch.ones(4, 3).double(), torch.from_numpy(gradient))
        squares.append(((before - model.weight.detach()).numpy() / 1e-6) ** 2)
    rows = np.sqrt(np.mean(squares[200:], 0).mean(1))
    assert rows.max() / rows.min() < 2  # of gradients 80
    assert 0.4 < rows.mean() < 1.2


def _power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**exponent) @ vectors.T


@pytest.mark.parametrize("every", [1, 4])
def test_kl_shampoo(every):
    """Each factor is the mean of G times the other's inverse times Gᵀ; large steps are clipped."""

    def shifted(factor):
        return factor + 1e-3 * np.linalg.eigvalsh(factor).max() * np.eye(len(factor))

    w, m, beta, clipped = START.copy(), np.zeros((4, 3)), 0.9, 0
    left, right, left_used, right_used = np.eye(4), np.eye(3), np.eye(4), np.eye(3)
    for k, g in enumerate(GRADIENTS, 1):
        m, weight = 0.8 * m + 0.2 * g, max(1 - beta, 1 / k)
        left = left + weight * (g @ np.linalg.inv(right_used) @ g.T / 3 - left)
        due = (k - 1) % every == 0
        left_used = shifted(left) if due else left_used
        right = right + weight * (g.T @ np.linalg.inv(left_used) @ g / 4 - right)
        right_used = shifted(right) if due else right_used
        step = _power(left_used, -0.5) @ m @ _power(right_used, -0.5) / (1 - 0.8**k)
        size = np.sqrt(np.mean(step**2))
        clipped += size > 1
        step /= max(1, size)
        w = w * (1 - 0.05 * 0.1) - 0.05 * step
    params = {"lr": 0.05, "beta1": 0.8, "beta2": beta, "weight_decay": 0.1, "matrix_eps": 1e-3}
    params["precondition_every"] = every
    np.testing.assert_allclose(_run("kl_shampoo", params), w, rtol=1e-8)
    assert bool(clipped) == (every > 1)
