"""The ratio of curvatures against dense float64 algebra, the factor, and the state."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from mlhf.optimizers.mlhf.kronecker import step_extension as module
from mlhf.optimizers.mlhf.kronecker.controller import FeatureEMA
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF
from mlhf.optimizers.mlhf.kronecker.step_extension import StepExtension
from tests.engine.optimizers.mlhf.dense import flat_function, gradient_and_matrix
from tests.engine.optimizers.mlhf.kronecker.small import batches, model_of, theta


class _Model:
    """A quadratic model at its minimum q, beside which d' has a curvature."""

    def __init__(self, own, on_next, directions=2):
        self.directions = [None] * directions
        self.gram = np.diag([own, on_next])[:directions, :directions]
        self.coefficients = np.array([1.0, 0.0])[:directions]


def _after(ratios):
    """Return an extension that has seen steps of such ratios, all applied in full."""
    extension = StepExtension()
    extension.see(_Model(1.0, 0.0))
    for ratio in ratios:
        extension.applied = extension.factor
        extension.see(_Model(1.0, extension.factor**2 / ratio))
    return extension


def test_a_steps_ratio_is_that_of_dense_curvatures(monkeypatch):
    """Each step is the factor times the minimum; the factor is the root of the mean ratio."""
    monkeypatch.setattr(module, "_CREDIBLE", 0.5)
    model = model_of()
    parameters = list(model.parameters())
    unpack = flat_function(model, parameters)
    optimizer = KroneckerMLHF(model, meta_checkpoint=None)
    before, own, mean, factors = None, None, 0.0, []
    for k, (x, y) in enumerate(batches(6, 2)):  # so many solve one after the other
        start = theta(model)
        _, _, g = gradient_and_matrix(model, unpack, start, x, y)
        factor = optimizer.step(x, y).stats["step_factor"]
        if k:
            log_ratio = math.log(own) - math.log(before @ g @ before)
            mean += max(0.2, 1 / k) * (log_ratio - mean)
            expected = math.exp(max(0.0, 0.5 * (mean - math.log(0.5))))
            assert factor == pytest.approx(expected, rel=1e-6)
            factors.append(factor)
        step = start - theta(model)
        before = step / factor
        own = float(before @ g @ before)
    assert max(factors) > 1.2


@pytest.mark.parametrize(
    ("ratio", "factor"), [(1e-9, 1.0), (1.0, 1.0), (99.0, 1.0), (400.0, 2.0), (1e9, 30.0)]
)
def test_the_factor_is_the_root_beyond_a_hundred_and_at_most_thirty(ratio, factor):
    assert _after([ratio] * 5).factor == pytest.approx(factor)


def test_the_mean_follows_a_ratio_that_falls():
    factors = [_after([1e4] * 5 + [10.0] * n).factor for n in range(15)]
    assert factors[0] == pytest.approx(10.0)
    assert all(b <= a for a, b in pairwise(factors))
    assert factors[-1] == 1.0


def test_models_without_the_last_step_and_steps_without_curvature_tell_nothing():
    extension = _after([400.0])
    before = extension.state_dict()
    extension.see(_Model(1.0, 1.0, directions=1))
    extension.see(_Model(1.0, 1.0, directions=0))
    assert extension.state_dict() == before
    extension.see(_Model(1.0, 0.0))
    assert extension.factor == pytest.approx(2.0)


def _run(optimizer, some):
    return [optimizer.step(*batch).stats["step_factor"] for batch in some]


def test_steps_are_as_long_as_their_batch_says_once_the_loss_is_a_tenth(monkeypatch):
    monkeypatch.setattr(module, "_CREDIBLE", 0.5)
    some = batches(6, 2)
    for reduction, longer in ((9.9, True), (10.0, False)):
        monkeypatch.setattr(FeatureEMA, "loss_reduction", lambda self, r=reduction: r)
        optimizer = KroneckerMLHF(model_of(), meta_checkpoint=None)
        factors = _run(optimizer, some)
        assert optimizer._extension.factor > 1
        assert (max(factors) > 1) is longer


def test_it_goes_on_bit_for_bit_from_its_state_and_without_one_from_an_older(monkeypatch):
    monkeypatch.setattr(module, "_CREDIBLE", 0.5)
    some = batches(14, 2)
    model, other, third = (model_of() for _ in range(3))
    optimizer, restored, older = (KroneckerMLHF(m) for m in (model, other, third))
    _run(optimizer, some[:7])
    state = optimizer.state_dict()
    for m, o in ((other, restored), (third, older)):
        m.load_state_dict(model.state_dict())
        o.load_state_dict(state if o is restored else {**state, "extension": None})
    del state["extension"]
    KroneckerMLHF(model_of()).load_state_dict(state)
    assert older._extension.factor == 1.0 < restored._extension.factor
    factors = _run(optimizer, some[7:])
    assert _run(restored, some[7:]) == factors
    assert torch.equal(theta(model), theta(other))
    assert _run(older, some[7:]) != factors


def test_a_step_that_is_skipped_leaves_it_as_it_was(monkeypatch):
    monkeypatch.setattr(module, "_CREDIBLE", 0.5)
    optimizer = KroneckerMLHF(model_of())
    *some, (x, y) = batches(5, 2)
    _run(optimizer, some)
    before = optimizer._extension.state_dict()
    optimizer.step(torch.full_like(x, torch.nan), y)
    assert optimizer.skipped_steps == 1
    assert optimizer._extension.state_dict() == before
