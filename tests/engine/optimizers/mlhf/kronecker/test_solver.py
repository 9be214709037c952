"""When a step solves, and that it is exact along a line where it does not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlhf.optimizers.mlhf.kronecker import solver as module
from mlhf.optimizers.mlhf.kronecker.controller import FeatureEMA
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF
from mlhf.optimizers.mlhf.kronecker.solver import interval, reusable
from tests.engine.optimizers.mlhf.dense import flat_function, gradient_and_matrix
from tests.engine.optimizers.mlhf.kronecker.small import batches as _batches
from tests.engine.optimizers.mlhf.kronecker.small import model_of as _model
from tests.engine.optimizers.mlhf.kronecker.small import theta as _theta


def _directions(monkeypatch, reuse=True):
    """Return a list that takes the number of directions of every model's ``add``.

    With ``reuse`` any coefficients may be reused.
    """
    if reuse:
        monkeypatch.setattr(module, "reusable", lambda *_: True)
    seen = []
    whole = module.QuadraticModel.add
    monkeypatch.setattr(
        module.QuadraticModel, "add", lambda self, *q: (seen.append(len(q)), whole(self, *q))
    )
    return seen


def _models(monkeypatch):
    """Return a list that takes every quadratic model as its subspace is widened."""
    seen = []
    whole = module.QuadraticModel.add
    monkeypatch.setattr(
        module.QuadraticModel, "add", lambda self, *q: (whole(self, *q), seen.append(self))
    )
    return seen


def _late(monkeypatch, solve_every, size=16):
    """Return an optimizer that has solved six times and now seldom does, and more batches."""
    optimizer = KroneckerMLHF(_model(), meta_checkpoint=None, solve_every=solve_every)
    batches = _batches(50, size)
    for batch in batches[:6]:
        optimizer.step(*batch)
    assert optimizer._solver._since_solve == 0
    monkeypatch.setattr(module, "interval", lambda step, divisor, most: most)
    return optimizer, batches[6:]


def test_solves_are_dense_at_first_and_between_them_the_step_is_exact_along_one_line(monkeypatch):
    """Where each step far below the first loss is measured: d = t·p, with p of the last solve."""
    monkeypatch.setattr(module, "LOW_LOSS", 0.0)  # any loss counts as low
    monkeypatch.setattr(module, "_UNMEASURED", 0)
    monkeypatch.setattr(module, "_OUTLIER", float("inf"))
    seen = _directions(monkeypatch)
    model = _model()
    parameters = list(model.parameters())
    unpack = flat_function(model, parameters)
    optimizer = KroneckerMLHF(model, meta_checkpoint=None, solve_every=3)
    for x, y in _batches(23):
        before = _theta(model)
        _, b, g = gradient_and_matrix(model, unpack, before, x, y)
        optimizer.step(x, y)
        d = before - _theta(model)
        if seen[-1] == 1:
            pieces = d.split([p.numel() for p in parameters])
            shaped = [t.view(p.shape) for t, p in zip(pieces, parameters, strict=True)]
            rotated = optimizer._basis.rotate(shaped)
            moment = optimizer._damping.second_moment / (1 - 0.99**optimizer._steps)
            s = (
                30
                * (1 + (optimizer._steps - 1) / 100) ** 0.5
                * (moment.sqrt() + 1e-5 * optimizer._basis.loss_scale)
            )
            # The slope of the model along d, at d, is zero.
            torch.testing.assert_close(b @ d, d @ g @ d + rotated @ (s * rotated))
    assert seen == [2] * 6 + [1, 2] + [1, 1, 2] * 5


def test_while_the_loss_is_high_steps_take_the_mean_of_the_last_solves(monkeypatch):
    monkeypatch.setattr(module, "_OUTLIER", float("inf"))
    seen = _directions(monkeypatch)
    models = _models(monkeypatch)
    optimizer, batches = _late(monkeypatch, solve_every=6)
    kept = models[0].coefficients
    for solved in models[1:]:
        kept = kept + 0.3 * (solved.coefficients - kept)
    for k, batch in enumerate(batches[:12]):
        momentum = optimizer.step(*batch).stats["momentum"]
        if k % 6 == 5:  # a solve's own coefficients are its step's
            assert momentum == models[-1].coefficients[1]
            kept = kept + 0.3 * (models[-1].coefficients - kept)
        else:
            assert momentum == pytest.approx(kept[1])
    assert seen[6:] == [2, 2]
    monkeypatch.setattr(FeatureEMA, "loss_reduction", lambda self: 11.0)
    for batch in batches[12:18]:
        optimizer.step(*batch)
    assert seen[8:] == [1, 2]  # two steps, one that measures, two steps, a solve
    np.testing.assert_array_equal(optimizer._solver._coefficients, models[-1].coefficients)


def _solutions(monkeypatch):
    """Return a list that takes, of every step, its ⟨b, Pb⟩, its loss and its coefficients."""
    seen = []
    whole = module.Solver.solve

    def solve(self, ggn, b, damped, first, *rest):
        found = whole(self, ggn, b, damped, first, *rest)
        seen.append((float(first.in_eigenbasis @ b), float(ggn.loss), found[1].copy()))
        return found

    monkeypatch.setattr(module.Solver, "solve", solve)
    return seen


def _near_interpolation(monkeypatch):
    """Return an optimizer that has solved six times and counts its loss as low, and batches."""
    monkeypatch.setattr(module, "_OUTLIER", float("inf"))
    _directions(monkeypatch)
    models = _models(monkeypatch)
    optimizer, batches = _late(monkeypatch, solve_every=60)
    monkeypatch.setattr(FeatureEMA, "loss_reduction", lambda self: 11.0)
    return optimizer, batches, models


def test_near_interpolation_two_steps_of_three_take_the_mean_length_of_those_that_measured(
    monkeypatch,
):
    optimizer, batches, models = _near_interpolation(monkeypatch)
    logs = [np.log(solved.coefficients[0]) for solved in models]
    mean = logs[0]
    for value in logs[1:]:
        mean += 0.3 * (value - mean)
    alpha, momentum = optimizer._solver._coefficients
    seen = _solutions(monkeypatch)
    for k, batch in enumerate(batches[:12]):
        optimizer.step(*batch)
        taken = seen[-1][2]
        if k % 3 == 2:
            alpha, momentum = taken
            mean += 0.3 * (np.log(alpha) - mean)
            continue
        expected = [np.exp(mean), min(momentum * np.exp(mean) / alpha, 1.0)]
        np.testing.assert_allclose(taken, expected, rtol=1e-9)
    assert [len(solved.directions) for solved in models[6:]] == [1] * 4


def test_a_step_that_does_not_measure_is_not_expected_to_gain_more_than_the_loss(monkeypatch):
    optimizer, (batch, again, *_), _ = _near_interpolation(monkeypatch)
    seen = _solutions(monkeypatch)
    optimizer._solver._mean_alpha = 1e6
    optimizer.step(*batch)
    norm, loss, (alpha, momentum) = seen[-1]
    assert 0.5 * alpha * norm == pytest.approx(loss)
    assert momentum <= 1
    optimizer._solver._mean_alpha, optimizer._solver._seen_negative = 1e6, True
    optimizer.step(*again)
    assert seen[-1][2] == pytest.approx([1e6, 1.0])  # the part of the last step never grows


def test_a_run_goes_on_between_two_steps_that_measure(monkeypatch):
    optimizer, batches, _ = _near_interpolation(monkeypatch)
    for batch in batches[:4]:
        optimizer.step(*batch)
    assert optimizer._solver._unmeasured == 1
    other = KroneckerMLHF(_model(), meta_checkpoint=None, solve_every=60)
    other.load_state_dict(optimizer.state_dict())
    other.model.load_state_dict(optimizer.model.state_dict())
    for batch in batches[4:12]:
        optimizer.step(*batch)
        other.step(*batch)
    assert torch.equal(_theta(optimizer.model), _theta(other.model))


def test_coefficients_that_would_grow_are_not_in_the_mean(monkeypatch):
    monkeypatch.setattr(module, "_OUTLIER", float("inf"))
    seen = _directions(monkeypatch)
    optimizer, batches = _late(monkeypatch, solve_every=6)
    kept = optimizer._solver._coefficients.copy()
    monkeypatch.setattr(module, "reusable", lambda *_: False)
    optimizer._solver._since_solve = 5
    optimizer.step(*batches[0])
    np.testing.assert_array_equal(optimizer._solver._coefficients, kept)
    optimizer.step(*batches[1])
    assert seen[6:] == [2, 2]  # the next one solves too


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ((0.2, 0.5), (0.38, 0.38)),
        ((0.01, 0.5), (0.01, 0.38)),
        ((0.01, -3.0), (0.01, 0.3)),
        ((0.2, -3.0), (0.5, 0.3)),
        ((-0.01, 0.5), (0.5, 0.3)),
        ((float("nan"), 0.5), (0.5, 0.3)),
    ],
)
def test_no_step_is_many_times_as_long_as_the_last_solve_found(found, kept):
    solver = KroneckerMLHF(_model(), meta_checkpoint=None)._solver
    solver._keep(np.array([0.5, 0.3]))
    solver._keep(np.array(found), 0.4)
    np.testing.assert_allclose(solver._coefficients, kept)


def test_a_step_with_an_outlying_gradient_is_measured(monkeypatch):
    seen = _directions(monkeypatch)
    optimizer, (*usual, (x, y)) = _late(monkeypatch, solve_every=1000, size=512)
    for batch in usual[:19]:
        optimizer.step(*batch)
    assert len(seen) == 6
    optimizer.step(10 * x, y)
    assert seen[6:] == [2]


def test_an_outliers_coefficients_are_for_itself(monkeypatch):
    _directions(monkeypatch)
    optimizer, (*usual, (x, y)) = _late(monkeypatch, solve_every=1000, size=512)
    for batch in usual[:19]:
        optimizer.step(*batch)
    kept = optimizer._solver._coefficients.copy()
    momentum = optimizer.step(10 * x, y).stats["momentum"]
    np.testing.assert_array_equal(optimizer._solver._coefficients, kept)
    assert momentum != kept[1]


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [
        ((0.5, 0.9), True),
        ((0.5, 0.0), True),
        ((0.5, 1.01), False),
        ((0.5, -28.7), False),
        ((-0.1, 0.5), False),
        ((float("nan"), 0.5), False),
    ],
)
def test_coefficients_that_would_grow_are_not_reused(coefficients, expected, monkeypatch):
    assert reusable(*coefficients) is expected
    seen = _directions(monkeypatch, reuse=False)
    optimizer, batches = _late(monkeypatch, solve_every=1000, size=512)
    optimizer._solver._keep(np.array(coefficients))
    optimizer.step(*batches[0])
    assert len(seen) == 6 + (not expected)


def test_an_interval_grows_to_its_most():
    assert [interval(k, 5, 3) for k in (0, 4, 9, 10, 14, 15, 99)] == [1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("predicted", [float("inf"), float("nan"), 1e-300])
def test_a_diagonal_that_overflows_is_no_error(monkeypatch, predicted):
    optimizer, _ = _late(monkeypatch, solve_every=6)
    model = SimpleNamespace(curvatures=lambda: (1.0, 1.0, predicted), predicted_reduction=0.1)
    optimizer._solver._record(1.0, model, np.array([0.5, 0.1]), None)
    assert len(optimizer._features.features()) == 10


def _confident(monkeypatch, loss="cross_entropy", wrong=True, **arguments):
    """Return a step's length over the minimum's, the loss, and by how much the minimum lowers it.

    The network is confident about all samples, and right or wrong: its softmax is flat.
    """
    seen = _models(monkeypatch)
    model = _model()
    with torch.no_grad():
        model[2].weight.mul_(30)
        ((x, _),) = _batches(1)
        z = model(x)
    before = _theta(model)
    optimizer = KroneckerMLHF(model, loss, meta_checkpoint=None, damping=1e-3, **arguments)
    stats = optimizer.step(x, z.argmin(-1) if wrong else z.argmax(-1))
    minimum = module.combine(seen[-1].coefficients, seen[-1].directions).in_parameters
    taken = float((before - _theta(model)).norm() / minimum.norm())
    return taken, float(stats.loss), seen[-1].predicted_reduction


def test_no_step_is_predicted_to_gain_more_than_the_loss(monkeypatch):
    """Gradient without curvature: the model's minimum lies many times too far away."""
    taken, loss, predicted = _confident(monkeypatch)
    assert predicted > 2 * loss
    assert taken == pytest.approx(loss / predicted)


def test_where_the_model_predicts_less_its_minimum_is_taken(monkeypatch):
    taken, loss, predicted = _confident(monkeypatch, wrong=False)
    assert predicted < loss
    assert taken == pytest.approx(1)


def test_a_penalty_counts_as_loss(monkeypatch):
    decay = 0.1
    before = _theta(_model())
    before[-15:-3] *= 30
    taken, loss, predicted = _confident(monkeypatch, weight_decay=decay)
    objective = loss + 0.5 * decay * float(before @ before)
    assert predicted > objective
    assert taken == pytest.approx(objective / predicted)


def test_between_solves_a_step_begins_with_what_was_taken_not_with_the_minimum(monkeypatch):
    monkeypatch.setattr(module, "_UNMEASURED", 0)
    _directions(monkeypatch)
    optimizer, (first, second, *_) = _late(monkeypatch, solve_every=2)
    monkeypatch.setattr(FeatureEMA, "loss_reduction", lambda self: 11.0)
    seen = _models(monkeypatch)
    solver = optimizer._solver
    monkeypatch.setattr(solver, "_polyak_scale", lambda *_: 0.5)
    kept = solver._coefficients
    optimizer.step(*first)  # along a line
    np.testing.assert_allclose(solver._coefficients, 0.5 * seen[0].coefficients * kept)
    optimizer.step(*second)  # a solve
    np.testing.assert_allclose(solver._coefficients, 0.5 * seen[1].coefficients)


def test_a_loss_that_may_be_negative_bounds_nothing(monkeypatch):
    def offset(z, y):
        return torch.nn.functional.cross_entropy(z, y) - 100

    taken, loss, predicted = _confident(monkeypatch, offset)
    assert loss < 0 < predicted
    assert taken == pytest.approx(1)


def test_that_a_loss_was_negative_is_kept(monkeypatch):
    optimizer, _ = _late(monkeypatch, solve_every=6)
    optimizer._solver._seen_negative = True
    other = KroneckerMLHF(_model(), meta_checkpoint=None, solve_every=6)
    other.load_state_dict(optimizer.state_dict())
    assert other._solver._seen_negative
