"""Gauss-Newton steps against dense float64 references, and on problems they are made for."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, hessian

from mlhf import GGN, GaussNewton, Residuals
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.jacobian.blocks import symmetric_product
from mlhf.curvature.jacobian.functional import FunctionalJacobian
from mlhf.curvature.loss_roots import loss_root
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.data.info import DataInfo
from mlhf.models import specs as models
from mlhf.optimizers.gauss_newton.memory_plan import memory_plan
from mlhf.optimizers.gauss_newton.rows import ChosenRows
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training.memory import training_bytes


def _mlp(inputs=3, outputs=2, width=5, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, outputs),
    ).to(dtype)  # fmt: skip


def _data(n, inputs=3, outputs=2, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, inputs), (n, outputs)
    return [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


def _jacobian(model, x):
    """Return dz/dθ, (rows, p), by one backward pass a row."""
    parameters = list(model.parameters())
    z = model(x).reshape(-1)
    rows = [
        torch.autograd.grad(v, parameters, retain_graph=True, materialize_grads=True) for v in z
    ]
    return torch.stack([flatten(row) for row in rows]).detach(), z.detach()


def _reference(model, x, y, damping, decay=0.0):
    j, z = _jacobian(model, x)
    scale = 2 / len(z)
    theta = flatten(list(model.parameters())).detach()
    g = scale * j.T @ j
    lam = damping * g.trace() + decay
    gradient = scale * j.T @ (z - y.reshape(-1)) + decay * theta
    return theta - torch.linalg.solve(g + lam * torch.eye(len(g), dtype=g.dtype), gradient)


class _Scaled(nn.Module):
    """A parameter that no layer's own forward pass uses."""

    def __init__(self):
        super().__init__()
        self.inner = _mlp()
        self.scale = nn.Parameter(torch.tensor([1.5, 0.5], dtype=torch.float64))

    def forward(self, x):
        return self.inner(x) * self.scale


# Fewer rows than parameters, and more; at once, and in blocks of samples.
@pytest.mark.parametrize(("n", "memory"), [(4, 2**30), (4, 3500), (60, 2**30), (60, 80_000)])
@pytest.mark.parametrize("make", [_mlp, _Scaled])
def test_a_step_solves_the_damped_normal_equations(n, memory, make):
    model, (x, y) = make(), _data(n)
    decay = 0.1 if memory == 3500 else 0.0
    expected = _reference(model, x, y, 0.1, decay)
    optimizer = GaussNewton(model, damping=0.1, weight_decay=decay, memory_bytes=memory)
    loss = F.mse_loss(model(x), y)
    result = optimizer.step(x, y)
    assert result.stats["step_length"] == 1
    assert torch.allclose(result.loss, loss.detach(), rtol=1e-12)
    assert torch.allclose(flatten(list(model.parameters())), expected, rtol=1e-9, atol=1e-12)


def test_the_damping_falls_tenfold_after_a_long_step_and_grows_within_a_step():
    """Where it fell by half, small eigenvalues stayed damped for hundreds of steps."""
    torch.manual_seed(0)
    model, (x, y) = nn.Linear(3, 2).double(), _data(20)
    optimizer = GaussNewton(model, damping=1e-2)
    found = [optimizer.step(x, y).stats["damping"] for _ in range(4)]
    assert found == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6])
    model, (x, y) = _mlp(width=20), _data(60)
    optimizer = GaussNewton(model)
    stats = [optimizer.step(x, 3 * y).stats for _ in range(20)]
    assert min(s["step_length"] for s in stats) >= 1 / 4
    assert max(s["damping"] for s in stats) > 1e-9  # from 1e-11, by retries alone


def test_rows_of_several_groups_are_computed_once(monkeypatch):
    model, batch = _pinn(), _points(12, torch.Generator().manual_seed(0))
    optimizer = GaussNewton(model)
    optimizer.step(batch)
    calls = []
    rows = FunctionalJacobian._rows
    monkeypatch.setattr(FunctionalJacobian, "_rows", lambda *a: calls.append(1) or rows(*a))
    optimizer.step(batch)
    assert len(calls) == 2  # a group each


@pytest.mark.parametrize("n", [1, 255, 256, 600])
def test_a_symmetric_product_is_the_plain_one(n):
    a = torch.randn(n, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = symmetric_product(a)
    assert torch.allclose(found, a @ a.T, rtol=1e-12, atol=1e-12)
    assert torch.allclose(found, found.T, rtol=1e-12, atol=1e-12)


def test_with_next_to_no_damping_it_interpolates():
    """Directions in sample space lose nothing to λ = 1e-11·tr: linear least squares, solved."""
    torch.manual_seed(0)
    model = nn.Linear(40, 1).double()
    x, y = _data(10, 40, 1)
    optimizer = GaussNewton(model)
    for _ in range(3):
        result = optimizer.step(x, y)
    assert F.mse_loss(model(x), y) < 1e-20
    assert result.loss < 1e-15


def _binned(z, y):
    return F.cross_entropy(z, y) + 0.3 * z.square().mean()


@pytest.mark.parametrize("loss", ["cross_entropy", _binned, "binary_cross_entropy", "huber"])
def test_a_root_gives_the_losss_gradient_and_hessian(loss):
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 2, 1, -100, 0, 1])
    if loss == "binary_cross_entropy":
        y = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if loss == "huber":
        loss, y = F.huber_loss, 0.3 * z
    named = {
        "cross_entropy": F.cross_entropy,
        "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    }
    function = named.get(loss, loss)
    root = loss_root(loss, z, y)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf, y), leaf)
    exact = torch.autograd.functional.hessian(lambda t: function(t, y), z).reshape(18, 18)
    whole = torch.block_diag(*root.root)
    assert torch.allclose(root.residual.reshape(-1) @ whole, gradient.reshape(-1), atol=1e-14)
    assert torch.allclose(whole.T @ whole, exact, atol=1e-7)
    assert torch.allclose(root.value, function(z, y), rtol=1e-12)


def test_a_loss_over_pairs_of_samples_has_no_root_and_is_solved_by_products():
    model, (x, y) = _mlp(), _data(8)

    def pairs(z, y):
        apart, wanted = (t.unsqueeze(1).sub(t).square().sum(-1) for t in (z, y))
        return (apart - wanted).square().mean()

    assert loss_root(pairs, model(x).detach(), y) is None
    optimizer = GaussNewton(model, pairs)
    losses = [float(optimizer.step(x, y).loss) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_linear_loss_is_refused():
    model, (x, y) = _mlp(), _data(8)
    with pytest.raises(CurvatureError, match="linear"):
        GaussNewton(model, lambda z, y: z.sum()).step(x, y)


def _conv():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.GroupNorm(1, 3), nn.Tanh(), nn.Flatten(),
        nn.LayerNorm(48), nn.Linear(48, 2),
    ).double()  # fmt: skip


def _shared():
    layer = nn.Linear(3, 3).double()
    torch.manual_seed(0)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(3, 2).double())


@pytest.mark.parametrize(
    ("make", "shape", "way"),
    [
        (_mlp, (3,), "EdgeJacobian"),
        (_conv, (1, 4, 4), "EdgeJacobian"),
        (_shared, (3,), "EdgeJacobian"),
        (_Scaled, (3,), "FunctionalJacobian"),
        (lambda: nn.Sequential(_mlp(), nn.BatchNorm1d(2).double()).eval(), (3,), "EdgeJacobian"),
    ],
)
def test_rows_are_those_of_one_backward_pass_each(make, shape, way):
    model = make()
    parameters = list(model.parameters())
    x = torch.randn(5, *shape, dtype=torch.float64)
    y = torch.zeros(5, 2, dtype=torch.float64)
    jacobian = ChosenRows(model, "mse", parameters, 2**30).get(x, y)
    assert type(jacobian).__name__ == way
    root = loss_root("mse", jacobian.forward(x), y)
    (chunk,) = jacobian.chunks(root.root, 1000)
    rows, scale = chunk.rows(), math.sqrt(2 / 10)
    exact = scale * _jacobian(model, x)[0]
    assert torch.allclose(rows.dense(), exact, rtol=1e-10, atol=1e-13)
    assert torch.allclose(rows.gram(), exact @ exact.T, rtol=1e-10, atol=1e-13)
    assert torch.allclose(rows.trace(), exact.square().sum(), rtol=1e-10)
    v, a = torch.randn(exact.shape[1]).double(), torch.randn(10).double()
    assert torch.allclose(rows.times(v), exact @ v, rtol=1e-10, atol=1e-12)
    assert torch.allclose(rows.transposed(a), a @ exact, rtol=1e-10, atol=1e-12)


def test_networks_that_mix_samples_have_no_rows_and_train_all_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).double()
    x, y = _data(20)
    assert ChosenRows(model, "mse", list(model.parameters()), 2**30).get(x, y) is None
    buffers = copy.deepcopy(model[1])
    optimizer = GaussNewton(model)
    first = optimizer.step(x, y).loss
    assert model[1].num_batches_tracked == buffers.num_batches_tracked + 1
    for _ in range(10):
        last = optimizer.step(x, y).loss
    assert last < 0.7 * first


def test_where_neither_matrix_fits_products_solve_the_same_system():
    model, (x, y) = _mlp(width=20), _data(60)
    p = sum(q.numel() for q in model.parameters())
    bound = 31 * p * 8
    assert memory_plan(120, p, 8, bound).space == "iterative"
    expected = _reference(model, x, y, 0.05)
    # Stopped at a residual of a thousandth.
    GaussNewton(model, damping=0.05, memory_bytes=bound).step(x, y)
    found = flatten(list(model.parameters()))
    start = flatten(list(_mlp(width=20).parameters()))
    assert (found - expected).norm() < 0.05 * (start - expected).norm()


def test_what_exceeds_memory_is_refused_and_names_mlhf():
    model, (x, y) = _mlp(), _data(60)
    with pytest.raises(CurvatureError, match=r"62 parameters.*memory_bytes=1,000.*mlhf"):
        GaussNewton(model, memory_bytes=1000).step(x, y)


def test_memory_is_told_before():
    assert memory_plan(100, 1000, 8).space == "samples"
    assert memory_plan(100, 1000, 8).bytes == 8 * (100_000 + 2 * 100**2)
    assert memory_plan(10_000, 100, 8).space == "parameters"
    blocks = memory_plan(10_000, 100, 8, 10**6)
    assert blocks.space == "parameters"
    assert blocks.block * 100 * 8 + 2 * 100**2 * 8 <= 10**6
    assert memory_plan(10**6, 10**6, 4).space == "iterative"
    assert memory_plan(10**6, 10**8, 4) is None


def test_a_jobs_estimate_counts_its_rows():
    summary = models.summarize("mlp", {"hidden": [50]}, _INFO)
    sizes = []
    for batch in (100, 1000):
        params = OPTIMIZERS.parse("gauss_newton", {})
        sizes.append(training_bytes(summary, _INFO, "gauss_newton", params, batch)[0])
    assert sizes[1] - sizes[0] > 4 * 900 * summary.parameters


def test_mlhfs_estimate_counts_the_rows_of_residuals_alone():
    summary = models.summarize("mlp", {"hidden": [50]}, _INFO)
    params = OPTIMIZERS.parse("mlhf", {})

    def grown(derivatives):
        small, large = (
            training_bytes(summary, _INFO, "mlhf", params, n, "float64", derivatives)
            for n in (100, 1000)
        )
        return large[0] - small[0] - (large[1] - small[1])

    assert grown(3) > 8 * 900 * summary.parameters
    assert grown(0) == 0


_INFO = DataInfo("table", (5,), 1, "regression", 2000, 100)


def _poisson(u, x):
    return hessian(u)(x).trace() + math.pi**2 * len(x) * torch.sin(math.pi * x).prod()


def _boundary(u, x, value):
    return u(x) - value


def _points(n, generator, dtype=torch.float64):
    inside = torch.rand(n, 2, generator=generator, dtype=dtype)
    edge = torch.rand(16, 2, generator=generator, dtype=dtype)
    index = torch.arange(16)
    edge[index, index % 2] = (index // 2 % 2).to(dtype)
    return {"inside": inside, "edge": (edge, torch.zeros(16, dtype=dtype))}


def _pinn(dtype=torch.float64):
    network = _mlp(2, 1, width=10, dtype=dtype)
    return Residuals(network, {"inside": _poisson, "edge": _boundary}, {"edge": 50.0})


def test_residuals_are_a_weighted_sum_of_means():
    model = _pinn()
    batch = _points(12, torch.Generator().manual_seed(0))
    z = model(batch)
    edge = model.network(batch["edge"][0])
    network = model.network

    def laplacian(x):
        return hessian(lambda t: functional_call(network, {}, (t,)).squeeze())(x).trace()

    inside = torch.stack([laplacian(x) for x in batch["inside"]])
    inside = inside + 2 * math.pi**2 * torch.sin(math.pi * batch["inside"]).prod(1)
    expected = inside.square().mean() + 50 * edge.square().mean()
    assert torch.allclose(model.loss(z), expected, rtol=1e-12)
    rows = ChosenRows(model, model.loss, list(model.parameters()), 2**30).get(batch, None)
    root = loss_root(model.loss, rows.forward(batch), None)
    for most in (1000, 5):  # at once, and in chunks
        found = torch.cat([c.rows().dense() for c in rows.chunks(root.root, most)])
        exact = math.sqrt(2 / len(z)) * _jacobian(model, batch)[0]
        assert torch.allclose(found, exact, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("dtype", "steps", "bound"), [(torch.float64, 40, 2e-3), (torch.float32, 15, 0.05)]
)
def test_a_differential_equation_is_solved_on_points_drawn_anew(dtype, steps, bound):
    model, generator = _pinn(dtype), torch.Generator().manual_seed(0)
    optimizer = GaussNewton(model)
    for _ in range(steps):
        optimizer.step(_points(60, generator, dtype))
    x = torch.rand(500, 2, generator=generator, dtype=dtype)
    exact = torch.sin(math.pi * x).prod(1)
    error = (model.network(x).squeeze(1) - exact).norm() / exact.norm()
    assert error < bound


def test_several_groups_are_named_where_a_batch_does_not_fit():
    model = _pinn()
    points = torch.rand(4, 2, dtype=torch.float64)
    for batch, message in [
        (points, "dict of points by group .inside, edge., not Tensor"),
        ({"outside": points}, "not 'outside'"),
        ({"edge": (points, points[:2, 0])}, "'edge' differ in length: 4, 2"),
        ({"inside": points[:0]}, "empty"),
    ]:
        with pytest.raises(CurvatureError, match=message):
            GaussNewton(model).step(batch)
    with pytest.raises(ValueError, match="'egde'"):
        Residuals(model.network, {"edge": _boundary}, {"egde": 1.0})


class _ByAutograd(nn.Module):
    """A residual whose network differentiates itself."""

    def __init__(self):
        super().__init__()
        self.network = _mlp(1, 1)

    def forward(self, x):
        x = x.detach().requires_grad_()
        u = self.network(x)
        return torch.autograd.grad(u.sum(), x, create_graph=True)[0] + u - 1


def test_a_network_that_calls_autograd_trains_and_is_evaluated():
    model = _ByAutograd()
    x, y = torch.linspace(0, 1, 20, dtype=torch.float64)[:, None], torch.zeros(20, 1).double()
    optimizer = GaussNewton(model)
    losses = [float(optimizer.step(x, y).loss) for _ in range(12)]
    assert losses[-1] < 1e-3 * losses[0]


def test_a_step_that_helps_nothing_leaves_the_parameters():
    model, (x, y) = _mlp(), _data(8)
    y = model(x).detach()
    before = flatten(list(model.parameters())).clone()
    result = GaussNewton(model).step(x, y)
    assert result.stats["step_length"] == 0
    assert torch.equal(flatten(list(model.parameters())), before)


def test_the_direction_is_the_gradients_where_damping_is_large():
    model, (x, y) = _mlp(), _data(8)
    ggn = GGN(model, "mse", x, y)
    before = flatten(list(model.parameters())).detach().clone()
    GaussNewton(model, damping=1e6).step(x, y)
    moved = before - flatten(list(model.parameters())).detach()
    gradient = flatten(unflatten(flatten(ggn.gradient), list(model.parameters())))
    assert torch.cosine_similarity(moved, gradient, 0) > 1 - 1e-9
