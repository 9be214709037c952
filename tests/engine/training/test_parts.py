"""The loop's parts, each alone."""

import json
import math

import pytest
import torch

from mlhf.core import atomic_files
from mlhf.core.budget import Budget, total_steps
from mlhf.core.errors import CheckpointError, DataError
from mlhf.core.events import (
    EventFile,
    encode,
    event,
    read,
)
from mlhf.core.metrics import parse_number
from mlhf.core.seeds import derive
from mlhf.optimizers.protocol import StepResult
from mlhf.training import checkpoint
from mlhf.training.clock import Clock
from mlhf.training.order import BatchOrder
from mlhf.training.recorder import Position, TrainingRecorder


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_sections_do_not_overlap_and_the_rest_counts_nowhere():
    time = Time()
    clock = Clock(time)
    time.now += 1
    with clock.section("training"):
        time.now += 2
        with clock.section("evaluation"):
            time.now += 30
        time.now += 4
        assert clock.seconds("training") == 6
    time.now += 500
    assert clock.seconds("training") == 6
    assert clock.seconds("evaluation") == 30
    other = Clock(time)
    other.load_state_dict(clock.state_dict())
    with other.section("training"):
        time.now += 1
    assert other.seconds("training") == 7


def test_cpu_seconds_count_the_same_sections_over_all_attempts():
    wall, cpu, thread = Time(), Time(), Time()
    clock = Clock(wall, cpu, thread)
    for passed in (1.0, 2.0):  # outside, then inside
        wall.now += passed
        cpu.now += 3 * passed
        thread.now += 0.7 * passed
        if passed == 1.0:
            assert clock.processor_share("training") is None, "nothing was counted yet"
            clock._switch("training")
    clock._switch(None)
    assert clock.cpu_seconds("training") == 6
    assert clock.cpu_seconds("evaluation") == 0
    assert clock.processor_share("training") == pytest.approx(0.7)
    resumed = Clock(wall, cpu, thread)
    resumed.load_state_dict(json.loads(json.dumps(clock.state_dict())))
    with resumed.section("training"):
        wall.now += 2
        cpu.now += 1
        thread.now += 1
    assert resumed.cpu_seconds("training") == 7
    assert resumed.processor_share("training") == pytest.approx(2.4 / 4)


def test_a_state_from_before_cpu_seconds_leaves_them_unknown_for_good():
    time = Time()
    clock = Clock(time, time, time)
    old = {"training": 5.0, "evaluation": 1.0, "checkpoint": 0.0, "compile": 0.0}
    clock.load_state_dict(old)
    with clock.section("training"):
        time.now += 1
        assert clock.seconds("training") == 6
        assert clock.cpu_seconds("training") is None
    again = Clock(time, time, time)
    again.load_state_dict(json.loads(json.dumps(clock.state_dict(), allow_nan=False)))
    assert again.seconds("training") == 6
    assert again.cpu_seconds("training") is None
    assert again.processor_share("training") is None


def test_the_clock_reads_this_process():
    clock = Clock()
    with clock.section("training"):
        while (clock.cpu_seconds("training") or 0) < 0.01:
            pass
    assert clock.seconds("training") >= 0.01 - 1e-3
    assert 0 < (clock.processor_share("training") or 0) < 1.1


def test_a_section_ends_with_an_error():
    time = Time()
    clock = Clock(time)

    def fail():
        with clock.section("training"):
            time.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    time.now += 5
    assert clock.seconds("training") == 1


def test_streams_of_a_seed_differ_and_are_stable():
    assert derive(0, "order", 1) == derive(0, "order", 1)
    streams = {derive(0, "order", 1), derive(0, "order", 2), derive(1, "order", 1), derive(0, "x")}
    assert len(streams) == 4


@pytest.mark.parametrize(
    ("samples", "batch", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1])],
)
def test_batches_of_an_epoch(samples, batch, sizes):
    order = BatchOrder(samples, batch, seed=0)
    epochs = [[order.next() for _ in sizes] for _ in range(2)]
    for batches in epochs:
        assert [len(b) for b in batches] == sizes
        assert len(set(torch.cat(batches).tolist())) == sum(sizes)
    assert order.steps_per_epoch == len(sizes)
    assert samples < 8 or not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    for wanted in range(1, 3 * sum(sizes)):
        steps, seen = 0, 0
        while seen < wanted:
            seen += sizes[steps % len(sizes)]
            steps += 1
        assert total_steps(Budget(samples=wanted), samples, batch) == steps


def test_the_order_goes_on_where_it_was():
    order = BatchOrder(50, 8, seed=1)
    for _ in range(10):
        order.next()
    other = BatchOrder(50, 8, seed=1)
    other.load_state_dict(json.loads(json.dumps(order.state_dict())))
    for _ in range(20):
        assert torch.equal(order.next(), other.next())


def test_an_empty_split_is_an_error():
    with pytest.raises(DataError, match="empty"):
        BatchOrder(0, 8, seed=1)


def test_trees_survive_a_file(tmp_path):
    shared = torch.randn(3)
    tree = {
        "a": [1, 2.5, None, True, "x", {"b": shared, "c": shared}],
        "nan": float("nan"),
        "empty": {},
        "scalar": torch.tensor(3, dtype=torch.int64),
        "slice": torch.arange(10)[::2],
    }
    written = checkpoint.save(tmp_path / "c.safetensors", tree)
    assert atomic_files.size_and_sha256(written.path) == (written.size, written.sha256)
    read_back = checkpoint.load(written.path)
    assert read_back["a"][:5] == tree["a"][:5]
    assert torch.equal(read_back["a"][5]["c"], shared)
    assert math.isnan(read_back["nan"])
    assert read_back["scalar"].dtype == torch.int64
    assert torch.equal(read_back["slice"], tree["slice"])
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path):
    for bad in ({"f": print}, {1: 2}, {"x": {"$tensor": "t0"}}):
        with pytest.raises(TypeError):
            checkpoint.save(tmp_path / "c", bad)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"garbage that is no checkpoint"])
def test_a_broken_checkpoint_is_named_as_such(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "absent.safetensors")


def test_only_the_newest_two_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 999_999_999, 1_000_000_000):
        checkpoint.save_step(tmp_path, step, {})
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["step-1000000000.safetensors", "step-999999999.safetensors"]


def test_events_are_strict_json_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    values = {"a": float("nan"), "b": [float("inf"), -float("inf")], "c": 1.5, "d": "\ud800é"}
    with EventFile(path) as file:
        file(event("points", values=values))
        file(event("log", message="two\nlines"))
    lines = path.read_bytes().splitlines()
    assert len(lines) == 2

    def refuse(token):
        raise AssertionError(token)

    decoded = json.loads(lines[0], parse_constant=refuse)["values"]
    assert decoded["a"] == "NaN"
    assert decoded["b"] == ["Infinity", "-Infinity"]
    assert math.isnan(parse_number(decoded["a"]))
    assert parse_number(decoded["b"][1]) == -math.inf


def test_half_a_line_is_not_read_and_a_new_writer_removes_it(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode({"n": 1}) + b'{"n": 2')
    assert [e for e, _ in read(path)] == [{"n": 1}]
    with EventFile(path) as file:
        file({"n": 3})
    events = list(read(path))
    assert [e for e, _ in events] == [{"n": 1}, {"n": 3}]
    assert list(read(path, events[0][1])) == events[1:]


def _at(step):
    return Position(step, 10 * step, step / 4, 0.5 * step)


def _recorder():
    events = []
    return TrainingRecorder(events.append, flush_seconds=1e9), events


def test_nothing_is_told_before_a_flush_and_then_all_at_once():
    recorder, events = _recorder()
    for step in range(1, 4):
        recorder.step(_at(step), StepResult(torch.tensor(float(step)), {"damping": 2.0}))
    assert events == []
    recorder.flush(lambda: event("progress"))
    recorder.flush(lambda: event("progress"))
    assert [e["type"] for e in events] == ["points", "progress"]
    assert [p["values"] for p in events[0]["points"]] == [
        {"batch_loss": float(step), "damping": 2.0} for step in (1, 2, 3)
    ]


def test_running_loss_is_the_mean_since_the_last_evaluation():
    recorder, _ = _recorder()
    assert "running_loss" not in recorder.evaluation(_at(0), {"train_loss": 9.0})
    for step in (1, 2):
        recorder.step(_at(step), StepResult(torch.tensor(float(step))))
    recorder.flush()
    recorder.step(_at(3), StepResult(torch.tensor(6.0)))
    assert recorder.evaluation(_at(3), {"train_loss": 5.0})["running_loss"] == 3
    assert recorder.summary()["train_loss"] == {"last": 5.0, "best": 5.0, "best_step": 3}
    assert recorder.summary()["batch_loss"] == {"last": 6.0, "best": 1.0, "best_step": 1}


def test_points_end_at_the_first_loss_that_is_not_finite():
    recorder, events = _recorder()
    for step, loss in enumerate([1.0, math.inf, math.nan, 2.0], start=1):
        recorder.step(_at(step), StepResult(torch.tensor(loss)))
    recorder.flush()
    assert [p["step"] for p in events[0]["points"]] == [1, 2]
    assert recorder.diverged_at == _at(2)
    assert recorder.summary()["batch_loss"] == {"last": math.inf, "best": 1.0, "best_step": 1}


def test_a_skipped_step_is_counted_and_its_loss_is_left_out():
    recorder, events = _recorder()
    nan = torch.tensor(math.nan)
    recorder.step(_at(1), StepResult(nan, {}, "inputs", 1))
    recorder.step(_at(2), StepResult(torch.tensor(2.0), {"damping": 3.0}, skipped_steps=1))
    recorder.step(_at(3), StepResult(nan, {}, "inputs", 2))
    assert recorder.evaluation(_at(3), {})["running_loss"] == 2
    recorder.flush()
    assert [p["values"] for p in events[0]["points"]] == [
        {"skipped_steps": 1.0},
        {"batch_loss": 2.0, "damping": 3.0},
        {"skipped_steps": 2.0},
        {"running_loss": 2.0},
    ]
    assert recorder.diverged_at is None
    assert recorder.summary()["skipped_steps"]["last"] == 2


def test_accuracy_is_best_when_highest():
    recorder, _ = _recorder()
    for step, value in enumerate([0.2, 0.9, 0.5]):
        recorder.evaluation(_at(step), {"test_accuracy": value})
    assert recorder.summary()["test_accuracy"] == {"last": 0.5, "best": 0.9, "best_step": 1}
