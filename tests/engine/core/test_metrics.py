"""Facts about metrics, that the trainer and the service share."""

import math

import pytest

from mlhf.core.metrics import json_number, parse_number, reaches, summarize


@pytest.mark.parametrize(
    ("metric", "best", "step"), [("train_loss", 0.5, 2), ("test_accuracy", 3.0, 0)]
)
def test_a_summary_has_the_last_value_and_the_first_of_the_best_ones(metric, best, step):
    summary = None
    for at, value in enumerate((3.0, 1.0, 0.5, 3.0, 0.5, math.inf)):
        summary = summarize(summary, metric, value, at)
    assert summary == {"last": math.inf, "best": best, "best_step": step}


def test_nothing_is_best_before_a_value_is_finite():
    summary = summarize(None, "train_loss", math.nan, 1)
    assert math.isnan(summary["last"])
    assert (summary["best"], summary["best_step"]) == (None, None)
    assert summarize(summary, "train_loss", 2.0, 2)["best"] == 2.0


@pytest.mark.parametrize("metric", ["train_loss", "train_accuracy"])
def test_a_target_is_reached_from_its_better_side(metric):
    better = 0.25 if metric == "train_loss" else 0.75
    assert reaches(metric, better, 0.5)
    assert reaches(metric, 0.5, 0.5)
    assert not reaches(metric, 1 - better, 0.5)
    assert not reaches(metric, math.nan, 0.5)


@pytest.mark.parametrize("value", [0.5, math.inf, -math.inf, math.nan])
def test_numbers_survive_json(value):
    found = parse_number(json_number(value))
    assert found == value or (math.isnan(found) and math.isnan(value))
    assert math.isfinite(value) or isinstance(json_number(value), str)
