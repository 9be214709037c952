"""The folder of a run: what a crash leaves there, and how the next attempt resumes."""

import pytest

from bench.harness.runs import (
    exclusive_lock,
    read_curve,
    read_result,
    run_or_resume,
)
from mlhf.core.errors import DataError
from mlhf.core.events import event
from mlhf.training.results import RunResult

CONFIG = {"seed": 0}


class CrashError(Exception):
    """Stands for whatever ends a process."""


def _points(steps):
    points = [{"step": s, "values": {"train_loss": 1.0 / (s + 1)}} for s in steps]
    return event("points", points=points)


def _crashes_after_a_checkpoint(run_dir, resume, on_event, should_stop):
    assert resume is None
    on_event(event("started", environment={"device": "cpu"}))
    on_event(_points([0, 1]))
    for step in (1, 20):  # the newest by number, not by name or age
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        (run_dir / "checkpoints" / f"step-{step:09d}.safetensors").touch()
    on_event(_points([20, 30]))
    with open(run_dir / "curve.jsonl", "ab") as file:
        file.write(b'{"step": 31, "val')  # was being written
    raise CrashError


def _resumes(run_dir, resume, on_event, should_stop):
    assert resume == "checkpoints/step-000000020.safetensors"
    on_event(event("started", environment={"device": "cpu"}))
    on_event(_points([30, 40]))
    return RunResult("succeeded", "budget", {"steps": 40}, {})


def _never(*_):
    raise AssertionError("was run again")


def test_a_run_that_crashed_has_each_point_once(tmp_path):
    with pytest.raises(CrashError):
        run_or_resume(tmp_path, CONFIG, _crashes_after_a_checkpoint, lambda: False)
    assert read_result(tmp_path) is None
    result = run_or_resume(tmp_path, CONFIG, _resumes, lambda: False)
    assert [p["step"] for p in read_curve(tmp_path)] == [0, 1, 20, 30, 40]
    assert result == read_result(tmp_path)
    assert (result["totals"], result["environment"]) == ({"steps": 40}, {"device": "cpu"})
    assert run_or_resume(tmp_path, CONFIG, _never, lambda: False) == result
    with pytest.raises(DataError):
        run_or_resume(tmp_path, {"seed": 1}, _never, lambda: False)


def test_points_that_are_not_kept_and_values_that_are_not_finite(tmp_path):
    def diverges(run_dir, resume, on_event, should_stop):
        points = [{"step": 0, "values": {"batch_loss": 1.0}}, *_points([1])["points"]]
        points[1]["values"]["train_loss"] = float("nan")
        on_event(event("points", points=points))
        return RunResult("diverged", "not finite", {}, {"train_loss": {"last": float("inf")}})

    result = run_or_resume(tmp_path, CONFIG, diverges, lambda: False)
    assert result["summary"]["train_loss"]["last"] == "Infinity"
    (point,) = read_curve(tmp_path)
    assert point["step"] == 1
    assert point["values"]["train_loss"] != point["values"]["train_loss"]


def test_nothing_begins_when_time_is_up(tmp_path):
    assert run_or_resume(tmp_path, CONFIG, _never, lambda: True) is None
    assert read_result(tmp_path) is None


def test_two_processes_do_not_share_a_folder(tmp_path):
    with exclusive_lock(tmp_path), pytest.raises(DataError, match="Another process"):
        exclusive_lock(tmp_path)
    exclusive_lock(tmp_path).close()
