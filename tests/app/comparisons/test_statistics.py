"""Numbers over seeds, checked against what one computes by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mlhf_service.comparisons.statistics import band, group_curve
from mlhf_service.runs.blocks import Block
from mlhf_service.runs.curves import Series
from mlhf_service.runs.reading import series_of


def _series(values: dict[int, float], seconds: float = 1.0, cpu: float | None = None) -> Series:
    points = [
        {
            "step": step,
            "samples": 10 * step,
            "epoch": step / 10,
            "wall_seconds": seconds * step,
            "cpu_seconds": None if cpu is None else cpu * step,
            "values": {"train_loss": value},
        }
        for step, value in values.items()
    ]
    return series_of("run_x", Block.of_points(points), "train_loss")


def test_a_band() -> None:
    found = band([1.0, 2.0, 6.0])
    assert (found.n, found.missing, found.mean, found.min, found.max) == (3, 0, 3.0, 1.0, 6.0)
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


@pytest.mark.parametrize("seed", range(20))
def test_a_band_of_any_size_is_numpys(seed: int) -> None:
    chance = np.random.default_rng(seed)
    values = chance.normal(size=chance.integers(2, 30)) * 10.0 ** chance.integers(-150, 150)
    found = band(values.tolist())
    assert found.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-12 * abs(values).max())
    assert found.std == pytest.approx(values.std(ddof=1), rel=1e-12)


def test_numbers_near_the_largest_have_a_mean_and_a_deviation_where_it_is_finite() -> None:
    same = band([1.5e308, 1.5e308, 1.5e308])
    assert same.mean == pytest.approx(1.5e308)
    assert same.std is None or same.std < 1e293
    apart = band([1.5e308, -1.5e308])
    assert (apart.mean, apart.std) == (0.0, None)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_what_is_missing_leaves_no_mean(missing: float | None) -> None:
    found = band([1.0, missing, 3.0])
    assert (found.n, found.missing, found.mean, found.std) == (2, 1, None, None)
    assert (found.min, found.max) == (1.0, 3.0)


def test_one_value_has_no_deviation() -> None:
    assert band([2.0]).model_dump() == {
        "n": 1,
        "missing": 0,
        "unfinished": 0,
        "mean": 2.0,
        "std": None,
        "min": 2.0,
        "max": 2.0,
    }
    assert band([]).mean is None


def test_a_curve_over_the_steps_all_runs_have() -> None:
    one = _series({0: 4.0, 5: 2.0, 10: 1.0, 13: 0.5}, seconds=1.0, cpu=2.0)
    two = _series({0: 2.0, 5: 1.0, 10: 0.0, 15: 9.0}, seconds=3.0, cpu=4.0)
    curve = group_curve([[one], [two]])
    assert curve.steps == [0, 5, 10]
    assert curve.samples == [0, 50, 100]
    assert curve.wall_seconds == [0, 10, 20]
    assert curve.cpu_seconds == [0, 15, 30]
    assert curve.mean == [3.0, 1.5, 0.5]
    assert curve.std == pytest.approx([math.sqrt(2), math.sqrt(0.5), math.sqrt(0.5)])
    assert (curve.min, curve.max) == ([2.0, 1.0, 0.0], [4.0, 2.0, 1.0])


def test_a_seed_that_diverges_is_not_averaged_away() -> None:
    curve = group_curve([[_series({0: 4.0, 5: math.inf})], [_series({0: 2.0, 5: 1.0})]])
    assert curve.mean == [3.0, None]
    assert curve.std[1] is None
    assert (curve.min[1], curve.max[1]) == (1.0, 1.0)


def test_curves_without_a_common_step() -> None:
    assert group_curve([[_series({0: 1.0})], [_series({1: 1.0})]]).steps == []
    assert group_curve([[_series({})]]).mean == []


def test_a_seed_that_waits_does_not_hide_the_others() -> None:
    curve = group_curve([[_series({0: 4.0, 5: 2.0})], [_series({})]])
    assert (curve.seeds, curve.mean) == (1, [4.0, 2.0])
    assert curve.cpu_seconds == [None, None]


def test_repeats_of_a_seed_count_once() -> None:
    repeats = [_series({0: 4.0, 5: 2.0}, seconds=1.0), _series({0: 4.0, 5: 4.0}, seconds=3.0)]
    curve = group_curve([repeats, [_series({0: 4.0, 5: 1.0}, seconds=1.0)]])
    assert curve.seeds == 2
    assert curve.mean == [4.0, 2.0]  # of 3 and 1
    assert curve.wall_seconds == [0, 7.5]  # of 10 and 5
    assert curve.std[1] == pytest.approx(math.sqrt(2))
    assert group_curve([repeats]).std == [None, None], "one seed has no deviation"


def test_long_curves_are_thinned() -> None:
    curve = group_curve([[_series({step: 1 / (step + 1) for step in range(5000)})]])
    assert len(curve.steps) <= 2000
    assert curve.downsampled
    assert (curve.total_points, curve.steps[-1]) == (5000, 4999)


def test_curves_of_which_points_were_left_out_are_read_off_at_the_steps_of_the_first() -> None:
    line = _series({step: 2.0 - step / 1000 for step in range(0, 1001, 10)})
    other = _series({step: 4.0 - step / 500 for step in range(5, 1000, 7)})
    thin = [replace(one, total=5000) for one in (line, other)]
    curve = group_curve([[thin[0]], [thin[1]]])
    assert curve.steps == list(range(10, 1000, 10)), "where both have points"
    expected = [3.0 - 1.5 * step / 1000 for step in curve.steps]
    assert curve.mean == pytest.approx(expected)
    assert curve.wall_seconds == pytest.approx([float(step) for step in curve.steps])
    assert (curve.total_points, curve.downsampled) == (5000, True)
