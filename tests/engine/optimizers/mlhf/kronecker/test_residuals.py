"""MLHF on residuals of differential equations, whose points are drawn anew for each step."""

import copy
import itertools
import math
from statistics import mean

import pytest
import torch
from torch import nn

from mlhf import GGN, MLHF, GaussNewton, Residuals
from mlhf.curvature.derivatives import laplacian
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.vectors import flatten
from mlhf.optimizers.mlhf.kronecker import residual_rows
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.judge import StepJudge
from mlhf.optimizers.mlhf.kronecker.residual_rows import ResidualRows

FEW_BYTES = 1000  # in which no rows fit


def _by_subspace(model, **options):
    return MLHF(model, model.loss, memory_bytes=FEW_BYTES, **options)


def _model(width=8, dtype=torch.float64):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
    ).to(dtype)
    return Residuals(network, {"inside": _poisson, "edge": _edge}, {"edge": 100.0})


def _poisson(u, x):
    return laplacian(u, x) + 2 * math.pi**2 * torch.sin(math.pi * x).prod(-1)


def _edge(u, x, value):
    return u(x) - value


def _points(n, generator, dtype=torch.float64):
    edge = torch.rand(n // 2, 2, generator=generator, dtype=dtype)
    side = torch.arange(len(edge))
    edge[side, side % 2] = (side // 2 % 2).to(dtype)
    inside = torch.rand(n, 2, generator=generator, dtype=dtype)
    return {"inside": inside, "edge": (edge, torch.zeros(len(edge), dtype=dtype))}


def _updated(model, batch):
    parameters = list(model.parameters())
    basis = Basis(model, parameters, decay=0.95, samples=32, max_dimension=1024, seed=0)
    with basis.recording():
        ggn = GGN(model, model.loss, batch, None, parameters, edges=lambda _: basis.edges)
    basis.update(ggn, x=batch)
    basis.refresh()
    return basis, ggn


def test_factors_hold_the_curvature_of_derivatives():
    """Each layer's block has the trace of the dense matrix."""
    model, batch = _model(), _points(20, torch.Generator().manual_seed(0))
    basis, ggn = _updated(model, batch)
    parameters, at = list(model.parameters()), 0
    for k, block in enumerate(basis._layers):
        trace = 0.0
        for i in (2 * k, 2 * k + 1):
            for j in range(parameters[i].numel()):
                v = [torch.zeros_like(p) for p in parameters]
                v[i].view(-1)[j] = 1
                trace += float(ggn.product(v)[i].view(-1)[j])
        found = basis.diagonal[at : at + block.size].sum()
        assert float(found) == pytest.approx(trace, rel=1e-9)
        at += block.size


def test_some_points_have_the_batchs_curvature_in_the_mean(monkeypatch):
    model, batch = _model(), _points(60, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    some = model.some_points(batch, 30, generator)
    assert (len(some["inside"][0]), len(some["edge"][0]), len(some["edge"][1])) == (20, 10, 10)
    points = {tuple(x.tolist()) for x in batch["inside"]}
    assert {tuple(x.tolist()) for x in some["inside"][0]} < points
    rows = ResidualRows(model, list(model.parameters()))

    def trace():
        return sum(float(t.square().sum()) for t in rows.draw(model.loss, batch, generator))

    whole = trace()
    monkeypatch.setattr(residual_rows, "POINTS", 30)
    assert mean(trace() for _ in range(20)) == pytest.approx(whole, rel=0.1)


def test_a_single_group_keeps_its_form():
    model = Residuals(nn.Linear(2, 1).double(), lambda u, x, y: u(x) - y)
    x, y = torch.rand(9, 2).double(), torch.rand(9).double()
    some = model.some_points((x, y), 4, torch.Generator().manual_seed(0))
    assert [len(t) for t in some] == [4, 4]
    assert model(some).shape == (4,)


def test_points_drawn_anew_do_no_harm():
    """Without the derivatives' curvature, and with a damping that grows, it stayed above 0.1."""
    model, generator = _model(16), torch.Generator().manual_seed(0)
    optimizer = _by_subspace(model)
    for _ in range(80):
        result = optimizer.step(_points(100, generator), None)
        assert "momentum" in result.stats  # over two directions
    optimizer.eval_mode()
    x = torch.rand(500, 2, generator=generator, dtype=torch.float64)
    exact = torch.sin(math.pi * x).prod(1)
    with torch.no_grad():
        error = (model.network(x).squeeze(1) - exact).norm() / exact.norm()
    assert error < 0.03
    assert result.stats["damping"] < 0.1


def test_residuals_are_minimised_over_more_directions():
    """A batch's own minimum is worth more where it has no noise."""
    model, batch = _model(), _points(20, torch.Generator().manual_seed(0))
    added = []
    for iterations in (1, 20):
        optimizer = _by_subspace(model, iterations=iterations)
        solve = optimizer._solver.solve
        optimizer._solver.solve = lambda *a, s=solve: added.append(s(*a)) or added[-1]
        optimizer.step(batch, None)
    assert [len(directions) for directions, _, _ in added] == [13, 21]


def test_a_step_that_raises_its_loss_is_taken_back():
    model, batch = _model(), _points(20, torch.Generator().manual_seed(0))
    optimizer = _by_subspace(model, damping=1e-6)
    losses = [float(optimizer.step(batch, None).loss) for _ in range(25)]
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("make", [_by_subspace, lambda m: MLHF(m, m.loss)])
def test_steps_go_on_from_a_state(make):
    def trained(steps, state=None, model=None):
        model = _model() if model is None else model
        optimizer = make(model)
        if state is not None:
            optimizer.load_state_dict(state)
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            optimizer.step(_points(20, generator), None)
        return model, optimizer

    model, optimizer = trained(5)
    other = copy.deepcopy(model)
    _, again = trained(4, copy.deepcopy(optimizer.state_dict()), other)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        optimizer.step(_points(20, generator), None)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)  # memory is aligned differently
    assert again._judge.factor == optimizer._judge.factor
    assert again._exact._whole._damping == optimizer._exact._whole._damping


def test_where_rows_fit_a_step_is_the_damped_solution_in_all_directions():
    model, batch = _model(), _points(20, torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    theta = flatten(parameters).detach().clone()
    z = model(batch)
    rows = torch.stack(
        [flatten(torch.autograd.grad(v, parameters, retain_graph=True, allow_unused=True,
                                     materialize_grads=True)) for v in z]
    )  # fmt: skip
    optimizer = MLHF(model, model.loss)
    optimizer._exact._whole._damping = 1e-2
    result = optimizer.step(batch, None)
    gram = 2 / len(z) * rows.T @ rows
    shift = 1e-2 * gram.trace() * torch.eye(len(gram), dtype=gram.dtype)
    d = torch.linalg.solve(gram + shift, 2 / len(z) * rows.T @ z.detach())
    expected = theta - result.stats["step_length"] * d
    assert result.stats["step_length"] >= 0.25
    assert torch.allclose(flatten(parameters).detach(), expected, rtol=1e-9, atol=1e-12)


def test_where_rows_fit_steps_are_gauss_newtons():
    models = [_model(), _model()]
    optimizers = [GaussNewton(models[0]), MLHF(models[1], models[1].loss)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        batch = _points(30, generator)
        for optimizer in optimizers:
            optimizer.step(batch, None)
    ours, theirs = (flatten(list(m.parameters())).detach() for m in models)
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_digits_come_in_a_few_steps_where_rows_fit():
    """A hundred steps over a few directions leave an error of about a hundredth."""
    model, generator = _model(16), torch.Generator().manual_seed(0)
    optimizer = MLHF(model, model.loss)
    for _ in range(40):
        optimizer.step(_points(300, generator), None)
    optimizer.eval_mode()
    x = torch.rand(500, 2, generator=generator, dtype=torch.float64)
    exact = torch.sin(math.pi * x).prod(1)
    with torch.no_grad():
        error = (model.network(x).squeeze(1) - exact).norm() / exact.norm()
    assert error < 1e-4


def test_options_of_groups_are_kept_by_the_subspace():
    """A rate of its own for some parameters has no solution in the whole space."""
    model, batch = _model(), _points(20, torch.Generator().manual_seed(0))
    first, *others = model.parameters()
    groups = [{"params": [first], "lr": 0.0}, {"params": others}]
    before = first.detach().clone()
    result = MLHF(model, model.loss, parameters=groups).step(batch, None)
    assert "momentum" in result.stats
    assert torch.equal(first, before)


@pytest.mark.parametrize(
    ("actual", "predicted", "kept", "factor"),
    [
        (1.0, 1.0, True, 0.8),
        (0.5, 1.0, True, 1.0),
        (0.1, 1.0, True, 2.0),
        (-1.0, 1.0, False, 4.0),
        (math.nan, 1.0, False, 4.0),
        (1.0, -1.0, True, 1.0),
    ],
)
def test_the_damping_follows_the_gain_ratio(actual, predicted, kept, factor):
    judge = StepJudge()
    assert judge.accepts(actual, predicted) is kept
    assert judge.factor == factor


@pytest.mark.parametrize("make", [GaussNewton, _by_subspace, lambda m: MLHF(m, m.loss)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_odd_batches_never_give_nan(make, dtype):
    """A few points, one group alone, huge and tiny weights, points that are all the same."""
    for weight in (1e-12, 1e12):
        torch.manual_seed(0)
        model = _model(dtype=dtype)
        model.weights["edge"] = weight
        optimizer = make(model)
        generator = torch.Generator().manual_seed(0)
        for n in (2, 9, 2):
            batch = _points(n, generator, dtype)
            optimizer.step(batch, None)
            optimizer.step({"edge": batch["edge"]}, None)
            optimizer.step({"inside": batch["inside"][:1].expand(5, 2)}, None)
        assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("make", [GaussNewton, _by_subspace, lambda m: MLHF(m, m.loss)])
@pytest.mark.parametrize(
    ("layers", "points", "said"),
    [
        ([], torch.rand(3, 4).double(), r"group 'edge' fails at points of shape \(4,\)"),
        ([], torch.rand(3, 2), "of torch.float64 and a tensor of the batch of torch.float32"),
        ([nn.Dropout(0.5)], torch.rand(3, 2).double(), "has Dropout"),
        ([nn.BatchNorm1d(4).double()], torch.rand(3, 2).double(), "has BatchNorm1d"),
    ],
)
def test_what_a_residual_cannot_be_computed_for_is_told(make, layers, points, said):
    network = nn.Sequential(nn.Linear(2, 4).double(), *layers, nn.Linear(4, 1).double())
    model = Residuals(network, {"edge": _edge})
    with pytest.raises(CurvatureError, match=said):
        make(model).step({"edge": (points, points[:, 0])}, None)
