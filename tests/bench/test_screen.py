"""The screening of changes: its design, its statistics, and a run with and without a change."""

import math
import pickle

import numpy as np
import pytest

from bench.wide.fold_over import hadamard, slopes
from bench.wide.screen import Candidate, Cost, Run, cost, differences, told


def test_the_designs_columns_are_orthogonal_signs():
    design = hadamard()
    assert design.shape == (48, 47)
    assert set(np.unique(design)) == {-1, 1}
    np.testing.assert_array_equal(design.T @ design, 48 * np.eye(47))


def test_slopes_are_found_whatever_the_curvature():
    random = np.random.default_rng(0)
    slope, curvature = random.normal(size=47), random.normal(size=(47, 47))
    design, step = hadamard(), 0.1

    def value(move):
        return slope @ move + move @ curvature @ move

    halves = [(value(step * row) - value(-step * row)) / 2 for row in design]
    np.testing.assert_allclose(slopes(design, halves, step), slope)


def test_differences_are_of_the_same_seed_and_bounded():
    costs = {
        ("modular", 1, 0): Cost(100.0, 1.0),
        ("modular", 1, 1): Cost(200.0, 1.0),
        ("modular", 2, 1): Cost(7.0, 1.0),  # of no pair
        ("unet", 1, 0): Cost(1.0, 1.0),
        ("unet", 1, 1): Cost(100.0, 1.0),
    }
    found = differences(costs, 1, 0, 0)
    assert found == {"modular": [pytest.approx(math.log(2))], "unet": [1.0]}
    assert told(found).startswith(f"{(math.log(2) + 1) / 2:+.3f} ± ")


def test_a_run_stops_at_its_target_and_a_change_changes_it(tmp_path):
    def of(target, **changes):
        run = Run("surrogate", 0, Candidate(**changes), target, tmp_path, tmp_path, "tiny")
        return cost(pickle.loads(pickle.dumps(run)))  # as a process of the pool gets it

    whole = of(1e-30)  # missed: twice the horizon
    reached = of(0.5)
    assert 0 < reached.samples < whole.samples / 2
    assert of(0.5).samples == reached.samples
    assert of(0.5, constants={"controller._STEP_RANGES": [0.1, 2, 2]}).samples != reached.samples
    assert of(0.5, constants={"damping._BETA2": [0.5]}).samples != reached.samples
    assert of(0.5, move={"step.weight.1.0": -0.9}).samples != reached.samples
