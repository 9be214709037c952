"""One run's folder: what a fall leaves there, and what the next attempt makes of it."""

import pytest

from bench.harness.runs import (
    alone,
    carry_out,
    curve_of,
    result_of,
)
from mlhf.ablation.run import Ended
from mlhf.core.errors import DataError
from mlhf.core.events import event

CONFIG = {"seed": 0}


class FallError(Exception):
    """Stands for whatever ends a process."""


def _told(steps):
    points = [{"step": s, "values": {"train_loss": 1.0 / (s + 1)}} for s in steps]
    return event("points", points=points)


def _falls_after_a_checkpoint(run_dir, resume, on_event, should_stop):
    assert resume is None
    on_event(event("started", environment={"device": "cpu"}))
    on_event(_told([0, 1]))
    for step in (1, 20):  # the newest by number, not by name or age
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        (run_dir / "checkpoints" / f"step-{step:09d}.safetensors").touch()
    on_event(_told([20, 30]))
    with open(run_dir / "curve.jsonl", "ab") as file:
        file.write(b'{"step": 31, "val')  # was being written
    raise FallError


def _goes_on(run_dir, resume, on_event, should_stop):
    assert resume == "checkpoints/step-000000020.safetensors"
    on_event(event("started", environment={"device": "cpu"}))
    on_event(_told([30, 40]))
    return Ended("succeeded", "budget", {"steps": 40}, {})


def _never(*_):
    raise AssertionError("was run again")


def test_a_run_that_fell_has_each_point_once(tmp_path):
    with pytest.raises(FallError):
        carry_out(tmp_path, CONFIG, _falls_after_a_checkpoint, lambda: False)
    assert result_of(tmp_path) is None
    result = carry_out(tmp_path, CONFIG, _goes_on, lambda: False)
    assert [p["step"] for p in curve_of(tmp_path)] == [0, 1, 20, 30, 40]
    assert result == result_of(tmp_path)
    assert (result["totals"], result["environment"]) == ({"steps": 40}, {"device": "cpu"})
    assert carry_out(tmp_path, CONFIG, _never, lambda: False) == result
    with pytest.raises(DataError):
        carry_out(tmp_path, {"seed": 1}, _never, lambda: False)


def test_points_that_are_not_kept_and_values_that_are_not_finite(tmp_path):
    def diverges(run_dir, resume, on_event, should_stop):
        points = [{"step": 0, "values": {"batch_loss": 1.0}}, *_told([1])["points"]]
        points[1]["values"]["train_loss"] = float("nan")
        on_event(event("points", points=points))
        return Ended("diverged", "not finite", {}, {"train_loss": {"last": float("inf")}})

    result = carry_out(tmp_path, CONFIG, diverges, lambda: False)
    assert result["summary"]["train_loss"]["last"] == "Infinity"
    (point,) = curve_of(tmp_path)
    assert point["step"] == 1
    assert point["values"]["train_loss"] != point["values"]["train_loss"]


def test_nothing_begins_when_time_is_up(tmp_path):
    assert carry_out(tmp_path, CONFIG, _never, lambda: True) is None
    assert result_of(tmp_path) is None


def test_two_processes_do_not_share_a_folder(tmp_path):
    with alone(tmp_path), pytest.raises(DataError, match="Another process"):
        alone(tmp_path)
    alone(tmp_path).close()
