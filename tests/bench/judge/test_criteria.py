"""What the protocol measures and decides, on curves made by hand."""

import math
from statistics import stdev

import pytest

from bench.harness.statistics import Curve
from bench.judge import criteria
from bench.judge.contenders import ADAMW_DEFAULTS, names
from bench.judge.measures import (
    crossing,
    estimate,
    integral,
    score,
    seconds_of,
    targets,
    train_losses,
)
from bench.judge.results import TaskResults, paired
from bench.judge.step_timing import StepTiming
from bench.judge.tasks import tasks, transfers

_MLP, _CONVNET = tasks("tiny")[0], tasks("tiny")[2]
_FIRST, _MATRIX = names("first order"), names("matrix")


def _curve(losses, seconds=1.0, status="succeeded", accuracy=0.5):
    """One evaluation an epoch of 100 samples and 10 steps, at so many seconds an epoch."""
    points = [
        {
            "step": 10 * i,
            "samples": 100 * i,
            "epoch": float(i),
            "wall_seconds": seconds * i,
            "values": {"train_loss": v, "test_loss": 2 * v, "test_accuracy": accuracy},
        }
        for i, v in enumerate(losses)
    ]
    totals = {"wall_seconds": seconds * (len(losses) - 1), "steps": 10 * (len(losses) - 1)}
    return Curve(points, {"status": status, "totals": totals})


def _seeds(*curves):
    return dict(enumerate(curves))


def _results(curves, long=None, chosen=None, timing=None, task=_MLP):
    return TaskResults(task, {}, curves, long or {}, chosen or {}, timing or {})


def _steady(milliseconds):
    """Steps that all take as long."""
    return StepTiming((1,), (milliseconds,))


_ADAMW = _seeds(_curve([2.0, 1.0, 0.5, 0.25, 0.125]))


def test_a_timing_is_interpolated_between_its_marks_and_extrapolated_beyond():
    timing = StepTiming((10, 30), (100.0, 160.0))  # 10 ms a step, then 3
    found = [timing.seconds(step) for step in (0, 5, 10, 20, 30, 32.5)]
    assert found == pytest.approx([0, 0.05, 0.1, 0.13, 0.16, 0.1675])
    assert timing.mean == pytest.approx(160 / 30)


def test_a_crossing_is_where_the_line_of_the_log_loss_meets_the_target():
    curve = _curve([4.0, 2.0, 0.5], seconds=3)
    at = crossing(curve, 1.0)  # halfway between 2 and ½ on a log scale
    assert at["samples"] == pytest.approx(150)
    assert at["wall_seconds"] == pytest.approx(4.5)
    assert at["train_loss"] == pytest.approx(1)
    assert at["test_loss"] == pytest.approx(2)
    assert seconds_of(at) == at["wall_seconds"]
    assert seconds_of(at, timing=_steady(100)) == pytest.approx(15 * 0.1)
    assert crossing(curve, 2.0)["samples"] == 100
    assert crossing(curve, 5.0)["samples"] == 0
    assert crossing(curve, 0.4) is None


def test_the_interval_is_student_s():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.half) == (2.0, pytest.approx(4.302653 / math.sqrt(3)))
    assert estimate([5.0]).half == 0
    assert math.isinf(estimate([1.0, math.inf]).mean)
    assert math.isinf(estimate([]).mean)


@pytest.mark.parametrize(
    ("count", "quantile"),
    # From tables of Student's t: two-sided, 95 %, count - 1 degrees of freedom.
    [(2, 12.706), (5, 2.776), (11, 2.228), (12, 2.201), (30, 2.045), (61, 2.000), (100, 1.984)],
)
def test_the_interval_is_student_s_for_any_number_of_seeds(count, quantile):
    values = [float(i % 3) for i in range(count)]
    error = stdev(values) / math.sqrt(count)
    assert estimate(values).half == pytest.approx(quantile * error, rel=3e-4)


def test_the_interval_of_twelve_seeds():
    assert estimate([0.0, 1.0, 2.0] * 4).half == pytest.approx(0.5418, abs=1e-4)


def test_integral_score_and_targets():
    curve = _curve([9.0, 1.0, math.e, math.e**2])
    assert integral(curve) == pytest.approx(1)
    assert score(curve) == pytest.approx((2 + 1) / 2)
    bad = _curve([9.0, 1.0, math.nan], status="diverged")
    assert score(bad) == integral(bad) == math.inf
    assert train_losses(bad)[-1] == math.inf
    assert targets([_ADAMW[0], _curve([2.0, 3.0, 1.5, 0.75, 0.375])]) == {
        "50": 1.0,
        "75": 0.5,
        "100": 0.25,
    }
    assert integral(_curve([1.0, 1e-9])) == pytest.approx(math.log(1e-6))


def test_below_first_order_is_reported_epoch_by_epoch():
    peers = dict.fromkeys(_FIRST, _ADAMW)
    ahead = {**peers, "mlhf": _seeds(_curve([2.0, 5.0, 0.4, 0.2, 0.1]))}
    assert criteria.below_first_order(_results(ahead)).met is True  # the 1st epoch does not count
    behind = {**peers, "mlhf": _seeds(_curve([2.0, 0.9, 0.4, 0.3, 0.1]))}
    found = criteria.below_first_order(_results(behind))
    assert found.met is False
    assert "below at 2 of 3 epochs; first not at epoch 3; worst 1.20 ×" in found.numbers
    some = {"adamw": _ADAMW, "mlhf": ahead["mlhf"]}
    found = criteria.below_first_order(_results(some))
    assert found.met is None
    assert "not run: sgd + momentum, rmsprop, adam, schedule-free" in found.numbers
    assert criteria.below_first_order(_results({"mlhf": ahead["mlhf"]})).met is None
    lost = {**peers, "mlhf": _seeds(_curve([2.0, 0.9, math.nan], status="diverged"))}
    assert criteria.below_first_order(_results(lost)).met is not True


def test_stable_means_never_above_the_loss_at_the_horizon():
    good = _curve([3.0, 2.0, 1.0, 0.9, 0.95, 0.5, 0.4])
    bad = _curve([3.0, 2.0, 1.0, 0.9, 1.05, 0.5, 0.4])
    lost = _curve([3.0, 2.0, 1.0, math.nan], status="diverged")
    for curves, met in (([good], True), ([good, bad], False), ([lost], False)):
        assert criteria.stable(_results({}, long={"mlhf": _seeds(*curves)})).met is met
    assert criteria.stable(_results({"mlhf": _seeds(good)})).met is None


def test_half_of_adamw_s_samples():
    half = _seeds(_curve([2.0, 0.5, 0.125, 0.1, 0.1]))
    late = _seeds(_curve([2.0, 0.5, 0.25, 0.1, 0.1]))
    never = _seeds(_curve([2.0, 0.5, 0.25, 0.2, 0.2]))
    for mine, met, text in ((half, True, "0.50"), (late, False, "0."), (never, False, "missed")):
        found = criteria.half_samples(_results({"adamw": _ADAMW, "mlhf": mine}))
        assert found.met is met
        assert text in found.numbers
    assert criteria.half_samples(_results({"mlhf": half})).met is None


def test_ahead_of_each_matrix_peer():
    peers = dict.fromkeys(_MATRIX, _ADAMW)
    mine = _seeds(_curve([2.0, 0.9, 0.4, 0.2, 0.1]))
    assert criteria.ahead_of_matrix(_results({**peers, "mlhf": mine})).met is True
    peers["muon"] = _seeds(_curve([2.0, 0.8, 0.4, 0.2, 0.1]))
    found = criteria.ahead_of_matrix(_results({**peers, "mlhf": mine}))
    assert found.met is False
    assert "muon +0.03" in found.numbers


def _timed(task=_CONVNET, **changes):
    """AdamW reaches its final loss after 4 s, mlhf after 2 epochs of 3 s."""
    every = [*_FIRST, *_MATRIX]
    slow = _seeds(_curve([2.0, 1.5, 1.0, 0.5, 0.25]))
    curves = {**dict.fromkeys(every, slow), "adamw": _ADAMW}
    curves["mlhf"] = _seeds(_curve([2.0, 0.5, 0.125], seconds=3))
    chosen = {n: {"100": (2.0, _seeds())} for n in every}
    return _results(curves, **{"chosen": chosen, "task": task, **changes})


def test_seconds_against_the_best_peer_at_its_best_horizon():
    found = criteria.seconds_against_best(_timed(), 1.0)
    assert found.met is False
    assert found.numbers.startswith("1.50 × adamw")
    # A peer that missed over the task's horizon gets there first over half of it.
    chosen = {n: {"100": (0.5, _seeds())} for n in (*_FIRST, *_MATRIX)}
    chosen["muon"] = {"100": (0.5, _seeds(_curve([2.0, 0.125], seconds=3)))}
    found = criteria.seconds_against_best(_timed(chosen=chosen), 1.0)
    assert found.numbers.startswith("2.00 × muon")
    assert "1.50 × adamw" in found.numbers
    # Step times measured in turns count in place of the runs' own seconds.
    timing = {
        **dict.fromkeys((*_FIRST, *_MATRIX), _steady(100)),
        "mlhf": _steady(160),
    }
    found = criteria.seconds_against_best(_timed(timing=timing), 0.8)
    assert found.met is True
    assert found.numbers.startswith("0.80 × adamw")
    del timing["muon"]  # then none of them counts
    assert criteria.seconds_against_best(_timed(timing=timing), 0.8).numbers.startswith("1.50 ×")
    fast = _seeds(_curve([2.0, 0.125]))
    found = _timed(chosen={})
    found = criteria.seconds_against_best(_results({**found.curves, "mlhf": fast}), 1.0)
    assert found.met is None
    assert "adamw's horizons" in found.numbers


def test_the_candidate_is_judged_on_the_seeds_of_its_horizon_not_on_a_quick_longer_run():
    curves = {**dict.fromkeys(_FIRST, _ADAMW), "mlhf": _seeds(_curve([2.0, 0.5, 0.125], 9.0))}
    quick = {"mlhf": _seeds(_curve([2.0, 0.5, 0.125], 0.1))}
    slow, also = (criteria.seconds_against_best(_results(curves, long=r), 1.0) for r in ({}, quick))
    assert slow.numbers == also.numbers


def test_seconds_are_reported_where_no_first_order_peer_got_there_on_all_its_seeds():
    late = _seeds(_curve([2.0, 1.0, 0.125]), _curve([2.0, 1.0, 0.5]))  # their mean is the target
    curves = {"adamw": late, "soap": _seeds(_curve([2.0, 0.1])), "mlhf": _seeds(_curve([2.0, 0.1]))}
    found = criteria.seconds_against_best(_results(curves), 1.0)
    assert found.numbers.startswith("1.00 × soap")
    assert "no first-order peer got there" in found.numbers


def test_the_learned_part_is_judged_seed_by_seed():
    # The seeds differ far more than candidate and control do; the interval is of the pairs.
    control = _seeds(*(_curve([2.0, 1.0 * k, 0.5 * k, 0.25 * k]) for k in (1, 3, 9)))
    ahead = _seeds(*(_curve([2.0, 0.9 * k, 0.45 * k, 0.224 * k]) for k in (1, 3, 9)))
    mixed = _seeds(*(_curve([2.0, v, v / 2, v / 4]) for v in (0.8, 3.3, 9.0)))
    for mine, met in ((ahead, True), (mixed, False), (control, False)):
        found = criteria.learned(_results({"mlhf": mine, "mlhf untrained": control}))
        assert found.met is met
    gap = paired(ahead, control, integral)
    assert gap.mean == pytest.approx((2 * math.log(0.9) + math.log(0.224 / 0.25)) / 3)
    one = {"mlhf": _seeds(ahead[0]), "mlhf untrained": _seeds(control[0])}
    assert criteria.learned(_results(one)).met is False  # one seed has no interval
    assert criteria.learned(_results({"mlhf": ahead})).met is None


def test_the_learned_part_may_be_ahead_in_seconds():
    same = _seeds(*(_curve([2.0, 1.0, 0.1]) for _ in range(3)))
    curves = {"mlhf": same, "mlhf untrained": same, "adamw": _ADAMW}
    assert criteria.learned(_results(curves)).met is False
    timing = {
        "mlhf": _steady(50),
        "mlhf untrained": _steady(100),
        "adamw": _steady(9),
    }
    found = criteria.learned(_results(curves, timing=timing))
    assert found.met is True
    assert "seconds 0.50 ×" in found.numbers


def test_test_loss_and_accuracy_at_equal_training_loss():
    quick = _seeds(*(_curve([2.0, 0.5, 0.125]) for _ in range(2)))
    found = criteria.test_at_equal_training(_results({"mlhf": quick, "adamw": _ADAMW}))
    assert found.met is True
    assert "loss at 100 % 0.25 ± 0 against 0.25" in found.numbers
    worse = _seeds(*(_curve([2.0, 0.5, 0.125], accuracy=0.4) for _ in range(2)))
    found = criteria.test_at_equal_training(_results({"mlhf": worse, "adamw": _ADAMW}))
    assert found.met is False


def test_where_it_is_worse_at_its_defaults_weight_decay_may_answer():
    good, bad = (
        _seeds(*(_curve([2.0, 0.5, 0.125], accuracy=a) for _ in range(2))) for a in (0.5, 0.4)
    )
    for mine, decayed, met in ((bad, good, True), (bad, bad, False), (good, bad, True)):
        curves = {"mlhf": mine, "mlhf + decay": decayed, "adamw": _ADAMW}
        found = criteria.test_at_equal_training(_results(curves))
        assert found.met is met
        assert ("with weight_decay 5e-05: " in found.numbers) is (mine is bad)


def test_transfer_wants_no_divergence_and_adamw_beaten():
    task = transfers("tiny")[0]
    peer = {ADAMW_DEFAULTS.name: _seeds(_curve([2.0, 1.0, 0.5]))}
    good, level = _seeds(_curve([2.0, 0.9, 0.4])), _seeds(_curve([2.0, 0.9, 0.5]))
    lost = _seeds(_curve([2.0, 0.1, 0.1]), _curve([2.0, math.nan], status="diverged"))
    for mine, met in ((good, True), (level, False), (lost, False)):
        found = criteria.transferred(_results({**peer, "mlhf": mine}, task=task))
        assert found.met is met
    assert "1 diverged" in found.numbers


def test_a_criterion_is_met_by_enough_families():
    peers = dict.fromkeys(_FIRST, _ADAMW)
    mine = _seeds(_curve([2.0, 0.5, 0.125, 0.1, 0.1]))
    by_task = [
        _results({**peers, "mlhf": mine} if j.family != "text" else {}, task=j)
        for j in tasks("tiny")
    ]
    found = {a.name.split()[0]: a for a in criteria.decide(by_task, [])}
    assert found["1a"].families == {"mlp": True, "convnet": True, "resnet": True, "text": None}
    assert (found["1a"].needed, found["1a"].met) == (4, None)
    assert (found["1c"].needed, found["1c"].met) == (3, True)
    behind = _results({**peers, "mlhf": _ADAMW}, task=tasks("tiny")[1])
    found = {a.name.split()[0]: a for a in criteria.decide([*by_task, behind], [])}
    assert found["1a"].families["mlp"] is False  # one task of a family is enough to miss it
    assert found["1a"].met is False
