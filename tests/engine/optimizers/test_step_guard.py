"""Steps that are not finite leave no trace but a count, and too many in a row are an error."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import MLHF, HessianFree
from mlhf.core.errors import DivergedError
from mlhf.curvature.ggn import GGN
from mlhf.optimizers.hessian_free import LevenbergMarquardt
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.l2l import L2L
from mlhf.optimizers.registry import build
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.optimizers.step_guard import NotFinite, add, check

EVERY = [
    *((name, {}) for name in OPTIMIZERS),
    *(("kfac", {"fisher": fisher}) for fisher in ("empirical", "exact")),
    ("mlhf", {"variant": "paper"}),
    ("mlhf", {"variant": "paper", "micro_batch": 4}),
    ("hf", {"micro_batch": 4, "curvature_batch": 8}),
]


def _problem():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)),
    )
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(10, 16, 6, generator=generator)
    return model, x, torch.randint(0, 3, (10, 16), generator=generator)


def _spoiled(x):
    x = x.clone()
    x[2, 3] = torch.nan
    return x


def _without_counts(state):
    if isinstance(state, dict):
        return {k: _without_counts(v) for k, v in state.items() if k != "guard"}
    return [_without_counts(v) for v in state] if isinstance(state, list | tuple) else state


@pytest.mark.parametrize(("name", "params"), EVERY)
def test_a_batch_that_is_not_finite_might_as_well_not_have_been(name, params):
    """At the first step and later: the run goes on bit for bit as one that never saw it."""
    model, x, y = _problem()
    other = copy.deepcopy(model)
    optimizer, undisturbed = (build(name, params, m).inner for m in (model, other))
    torch.manual_seed(2)
    for i in range(6):
        if i in (0, 4):
            result = optimizer.step(_spoiled(x[9]), y[9])
            assert result.skipped == "inputs"
            assert optimizer.skipped_steps == result.skipped_steps == 1 + (i == 4)
        assert optimizer.step(x[i], y[i]).skipped is None
    torch.manual_seed(2)
    for i in range(6):
        undisturbed.step(x[i], y[i])
    for mine, theirs in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    states = [_without_counts(o.state_dict()) for o in (optimizer, undisturbed)]
    leaves = [torch.utils._pytree.tree_leaves(state) for state in states]
    for mine, theirs in zip(*leaves, strict=True):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs


def _makers():
    return {
        "mlhf": MLHF,
        "paper": lambda model, loss, **o: MLHF(model, loss, variant="paper", **o),
        "hf": HessianFree,
        "hf fixed": lambda model, loss, **o: HessianFree(model, loss, "fixed", **o),
        "hf lm": lambda model, loss, **o: HessianFree(model, loss, LevenbergMarquardt(), **o),
        "kfac": lambda model, loss, **o: Kfac(model, loss, fisher="empirical", **o),
        "l2l": L2L,
    }


ALL = list(_makers())


def _linear():
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def _regression(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)


class _NaNBackward(torch.autograd.Function):
    @staticmethod
    def forward(z):
        return z.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g * torch.nan

    @staticmethod
    def jvp(ctx, t):
        return t * torch.nan


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cause", ["inputs", "targets", "parameters", "loss", "gradient"])
def test_the_error_names_the_cause(name, cause):
    model, (x, y) = _linear(), _regression()
    fault = {"now": False}

    def loss(z, y):
        if fault["now"] and cause == "loss":
            return ((z - y) * 1e30).square().mean()
        if fault["now"] and cause == "gradient":
            z = _NaNBackward.apply(z)
        return F.mse_loss(z, y)

    optimizer = _makers()[name](model, loss, max_skipped_steps=2)
    optimizer.step(x, y)
    fault["now"] = True
    if cause == "inputs":
        x[3, 1] = torch.inf
    elif cause == "targets":
        y[0, 0] = torch.nan
    elif cause == "parameters":
        with torch.no_grad():
            model.bias[0] = torch.nan
    before = [p.detach().clone() for p in model.parameters()]
    for count in (1, 2):
        result = optimizer.step(x, y)
        assert (result.skipped, result.skipped_steps) == (cause, count)
    with pytest.raises(DivergedError, match=f"3 steps in a row .* the {cause}; "):
        optimizer.step(x, y)
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.nan_to_num(), old.nan_to_num())


@pytest.mark.parametrize("name", ["paper", "hf", "hf fixed", "hf lm"])
def test_a_direction_that_is_not_finite_is_not_taken(name, monkeypatch):
    model = _linear()
    optimizer = _makers()[name](model, "mse")
    for _ in range(3):
        optimizer.step(*_regression())
    before = copy.deepcopy((model.state_dict(), _without_counts(optimizer.state_dict())))
    with monkeypatch.context() as patch:
        nan = lambda self, v: [t * torch.nan for t in v]  # noqa: E731
        patch.setattr(GGN, "product", nan)
        result = optimizer.step(*_regression())
    assert result.skipped == "direction"
    assert result.loss.isfinite()
    after = model.state_dict(), _without_counts(optimizer.state_dict())
    if name == "paper":  # the networks' states have moved on, since gradients were ordinary
        for state in (before[1], after[1]):
            assert state["state"]["damping"].isfinite().all()
            del state["state"]["damping"], state["state"]["preconditioner"]
    for mine, theirs in zip(*map(torch.utils._pytree.tree_leaves, (before, after)), strict=True):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs
    assert optimizer.step(*_regression()).skipped is None


def test_the_papers_networks_are_restored_where_gradients_are_large(monkeypatch):
    model, (x, y) = _linear(), _regression()
    optimizer = MLHF(model, "mse", variant="paper", lr=1e-9)
    optimizer.step(x, y + 1e9)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    monkeypatch.setattr(GGN, "product", lambda self, v: [t * torch.nan for t in v])
    assert optimizer.step(x, y + 1e9).skipped == "direction"
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_kronecker_step_whose_curvature_is_not_finite_restores_the_basis(monkeypatch):
    model, x, y = _problem()
    optimizer = MLHF(model)
    for i in range(3):
        optimizer.step(x[i], y[i])
    before = copy.deepcopy((model.state_dict(), _without_counts(optimizer.state_dict())))
    with monkeypatch.context() as patch:
        patch.setattr(GGN, "output_trace", lambda self, generator: torch.tensor(torch.inf))
        assert optimizer.step(x[3], y[3]).skipped == "direction"
    after = model.state_dict(), _without_counts(optimizer.state_dict())
    for mine, theirs in zip(*map(torch.utils._pytree.tree_leaves, (before, after)), strict=True):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "shampoo", "muon"])
@pytest.mark.parametrize(("scale", "cause"), [(1e14, "updated parameters"), (1e34, "gradient")])
def test_a_first_order_step_that_overflows_is_taken_back(name, scale, cause):
    """Large gradients overflow parameters by SGD, larger ones the squares that others keep."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = build(name, {"lr": 1e6}, model, lambda z, y: scale * z.mean()).inner
    x, y = _regression()
    before = copy.deepcopy(model.state_dict())
    skipped = optimizer.step(1e3 * x, y).skipped
    if cause == "gradient" or name in ("sgd", "momentum"):
        assert skipped == cause
        for mine, theirs in zip(model.state_dict().values(), before.values(), strict=True):
            assert torch.equal(mine, theirs)
    else:  # steps as long as lr
        assert skipped is None
    state = torch.utils._pytree.tree_leaves([optimizer.state_dict(), model.state_dict()])
    assert all(t.isfinite().all() for t in state if isinstance(t, torch.Tensor))


def test_updates_that_would_overflow_are_not_added():
    loss = torch.tensor(1.0)
    parameters = [torch.full((3,), 3e38), torch.ones(2)]
    before = [p.clone() for p in parameters]
    update = [torch.full((3,), 1e38), torch.ones(2)]
    with pytest.raises(NotFinite):
        add(parameters, update, 1.0, 1e38, loss)
    for p, old in zip(parameters, before, strict=True):
        assert torch.equal(p, old)
    add(parameters, update, -1.0, 1e38, loss)
    assert torch.equal(parameters[1], torch.zeros(2))


def test_a_check_gives_norms_and_names_the_first_fault():
    loss = torch.tensor(1.0)
    a = [torch.tensor([3.0, 0.0]), torch.ones(0), torch.tensor(-4.0)]
    assert check(loss, {"a": a, "b": []}) == [5.0, 0.0]
    half = torch.full((10_000,), 1000.0, dtype=torch.float16)
    assert check(loss, {"half": [half]}) == pytest.approx([1e5], rel=1e-4)
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(NotFinite, match="b"):
            check(loss, {"a": [torch.ones(2)], "b": [torch.ones(3), torch.tensor([0.0, bad])]})
    with pytest.raises(NotFinite, match="loss"):
        check(torch.tensor(torch.nan), {"a": [torch.tensor(torch.nan)]})
    sparse = torch.sparse_coo_tensor([[1, 1]], [[torch.inf], [1.0]], (3, 1), check_invariants=True)
    with pytest.raises(NotFinite, match="a"):
        check(loss, {"a": [sparse]})


@pytest.mark.parametrize("name", ALL)
def test_missing_values_that_the_model_masks_are_no_fault(name):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = _linear()

        def forward(self, x):
            return self.inner(x.nan_to_num())

    x, y = _regression()
    result = _makers()[name](Masked(), "mse").step(_spoiled(x), y)
    assert result.skipped is None


def test_a_step_that_is_taken_ends_the_row_and_restored_counts_go_on():
    model, (x, y) = _linear(), _regression()
    optimizer = HessianFree(model, "mse", max_skipped_steps=2)
    for batch in (_spoiled(x), x, _spoiled(x), _spoiled(x)):
        optimizer.step(batch, y)
    state = optimizer.state_dict()
    restored = HessianFree(model, "mse", max_skipped_steps=2)
    restored.load_state_dict(state)
    assert restored.skipped_steps == 3
    with pytest.raises(DivergedError):
        restored.step(_spoiled(x), y)
    state.pop("guard")  # as states from before there was one
    restored.load_state_dict(state)
    assert restored.skipped_steps == 0


def test_the_first_step_of_a_row_is_warned_of(caplog):
    x, y = _regression()
    optimizer = MLHF(_linear(), "mse")
    with caplog.at_level(logging.WARNING):
        for batch in (_spoiled(x), _spoiled(x), x, _spoiled(x)):
            optimizer.step(batch, y)
    assert len(caplog.records) == 2
    assert "inputs" in caplog.text


@pytest.mark.parametrize("value", [-1, 2.5, True, "3"])
def test_how_many_may_be_skipped_is_checked(value):
    with pytest.raises(ValueError, match="max_skipped_steps"):
        MLHF(_linear(), "mse", max_skipped_steps=value)


@pytest.mark.parametrize("name", ["mlhf", "paper", "hf", "l2l"])
def test_a_step_that_raises_leaves_no_trace(name):
    model, x, y = _problem()
    other = copy.deepcopy(model)
    fault = {"now": False}

    def loss(z, y):
        if fault["now"]:
            raise ValueError("as a user's function may")
        return F.cross_entropy(z, y)

    optimizer, undisturbed = (_makers()[name](m, loss) for m in (model, other))
    torch.manual_seed(2)
    for i in range(4):
        fault["now"] = True
        with pytest.raises(ValueError, match="as a user's"):
            optimizer.step(x[i], y[i])
        fault["now"] = False
        optimizer.step(x[i], y[i])
    torch.manual_seed(2)
    for i in range(4):
        undisturbed.step(x[i], y[i])
    for mine, theirs in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
