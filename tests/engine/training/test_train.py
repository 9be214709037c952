"""Whole runs in this process."""

import json
import math
from pathlib import Path

import pytest
import torch

from mlhf import load_model, train
from mlhf.core.errors import SpecError
from mlhf.data.loading import Dataset
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training import evaluation, trainer
from mlhf.training.clock import Clock


def _weights(model):
    return torch.cat([t.double().reshape(-1) for t in model.state_dict().values()])


def _stop_after(steps):
    """A should_stop that says yes once so many steps were asked about."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps


def test_each_step_has_one_point_and_evaluations_are_where_they_should_be(config, points):
    events = []
    result = train(config(budget={"epochs": 2.5}), on_event=events.append)
    assert result.status == "succeeded"
    assert result.reason == "budget"
    found = points(events)
    assert [s for s, v in found if "batch_loss" in v] == list(range(1, 26))
    assert [s for s, v in found if "train_loss" in v] == [0, 10, 20, 25]
    assert all(0 <= v["test_accuracy"] <= 1 for _, v in found if "test_accuracy" in v)
    assert [s for s, v in found if "running_loss" in v] == [10, 20, 25]
    assert events[0]["type"] == "started"
    assert events[-1]["type"] == "finished"
    assert events[-1]["totals"]["samples"] == 2 * 300 + 5 * 32
    assert events[-1]["totals"]["steps"] == 25
    assert result.summary["train_loss"]["last"] < 2.3
    json.dumps(events)


def test_the_same_seed_gives_the_same_run_and_another_another(config, points):
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed * 7 + len(runs))  # what the caller drew must not matter
        events = []
        result = train(config(seed=seed), on_event=events.append)
        runs.append((_weights(result.model), points(events)))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0], runs[2][0])


def test_how_often_it_is_measured_does_not_change_the_run(config):
    one, often = (train(config(evaluation={"every_epochs": every})).model for every in (5.0, 0.1))
    assert torch.equal(_weights(one), _weights(often))


def test_a_run_leaves_the_process_as_it_was(config):
    torch.manual_seed(0)
    before = torch.get_rng_state(), torch.get_num_threads()
    train(config(threads=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_interrupted_and_resumed_equals_undisturbed(config, points, tmp_path, optimizer):
    run = config(optimizer, budget={"steps": 25})
    whole_events = []
    whole = train(run, on_event=whole_events.append)
    # In order: within the evaluation before the first step, after it, within the one at step 10,
    # after it, between, within the last one. Where a run stops does not depend on its optimizer.
    for stop in (0, 3, 14, 16, 20, 33) if optimizer == "mlhf" else (0, 16):
        folder = tmp_path / str(stop)
        folder.mkdir()
        first_events, second_events = [], []
        first = train(
            run, on_event=first_events.append, run_dir=folder, should_stop=_stop_after(stop)
        )
        assert first.status == "interrupted"
        saved = [e for e in first_events if e["type"] == "checkpoint"]
        assert first_events[-1]["type"] == "interrupted"
        assert first_events[-1]["step"] == saved[-1]["step"]
        path = saved[-1]["path"]
        second = train(run, on_event=second_events.append, run_dir=folder, resume=path)
        assert second.status == "succeeded"
        assert second_events[0]["resumed_from_step"] == saved[-1]["step"]
        assert torch.equal(_weights(second.model), _weights(whole.model))
        assert points(first_events) + points(second_events) == points(whole_events)
        assert second.summary == whole.summary
        assert second.totals["samples"] == whole.totals["samples"]


def test_checkpoints_on_the_way_come_after_their_points(config, points, tmp_path):
    events = []
    run = config()
    train(run, on_event=events.append, run_dir=tmp_path, checkpoint_seconds=1e-9)
    steps = [e["step"] for e in events if e["type"] == "checkpoint"]
    assert steps == list(range(20))
    for i, e in enumerate(events):
        if e["type"] == "checkpoint":
            seen = [s for s, v in points(events[:i]) if "batch_loss" in v]
            assert seen == list(range(1, e["step"] + 1))
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-000000018.safetensors", "step-000000019.safetensors"]


def test_wall_seconds_count_training_only(config, monkeypatch, tmp_path):
    """On a made-up time: a step takes 1 s, an evaluation 100 s, a checkpoint 1000 s."""

    class Time:
        now = 0.0

        def __call__(self):
            return self.now

    time = Time()

    def takes(seconds, function):
        def slow(*args, **kwargs):
            time.now += seconds
            return function(*args, **kwargs)

        return slow

    monkeypatch.setattr(trainer, "evaluate", takes(100, evaluation.evaluate))
    monkeypatch.setattr(trainer.BatchOrder, "next", takes(1, trainer.BatchOrder.next))
    save = trainer.checkpoint.save_step
    monkeypatch.setattr(trainer.checkpoint, "save_step", takes(1000, save))
    events = []

    def on_event(e):
        time.now += 10_000
        events.append(e)

    result = train(
        config(),
        on_event=on_event,
        run_dir=tmp_path,
        checkpoint_seconds=1e-9,
        clock=Clock(time),
    )
    assert result.totals["wall_seconds"] == 20
    assert result.totals["evaluation_seconds"] == 300
    assert result.totals["checkpoint_seconds"] == 20_000
    walls = [
        (p["step"], p["wall_seconds"]) for e in events if e["type"] == "points" for p in e["points"]
    ]
    assert all(step == wall for step, wall in walls)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"steps": 7}, 7),
        ({"samples": 33}, 2),
        ({"epochs": 0.01}, 1),
        ({"epochs": 1, "steps": 50}, 10),
        ({"epochs": 5, "samples": 300}, 10),
        ({"wall_seconds": 1e-9}, 1),
    ],
)
def test_the_first_limit_ends_the_run(config, budget, steps):
    assert train(config(budget=budget)).totals["steps"] == steps


def test_a_target_ends_the_run_if_it_should(config):
    target = {"metric": "train_accuracy", "value": 0.5, "stop": True}
    run = config("hf_adam", budget={"epochs": 50}, target=target)
    events = []
    result = train(run, on_event=events.append)
    assert result.reason == "target"
    assert result.totals["steps"] < 500
    assert result.summary["train_accuracy"]["last"] >= 0.5
    assert events[-1]["target"]["step"] == result.totals["steps"]
    target["stop"] = False
    assert train({**run, "budget": {"epochs": 8}}).totals["steps"] == 80


def test_divergence_ends_the_run_and_its_points(config, points, tmp_path):
    events = []
    # Each step multiplies the weights by -999.
    optimizer = {"name": "sgd", "params": {"lr": 1.0, "weight_decay": 1000.0}}
    run = config(optimizer, budget={"steps": 1000}, evaluation={"every_epochs": 1000})
    result = train(run, on_event=events.append, run_dir=tmp_path)
    assert result.status == "diverged"
    losses = [(s, v["batch_loss"]) for s, v in points(events) if "batch_loss" in v]
    skipped = [(s, v["skipped_steps"]) for s, v in points(events) if "skipped_steps" in v]
    assert not math.isfinite(losses[-1][1])
    assert all(math.isfinite(v) for _, v in losses[:-1])
    assert [count for _, count in skipped] == list(range(1, 11))
    assert result.totals["steps"] == losses[-1][0] == len(losses) + len(skipped)
    assert f"step {losses[-1][0]}" in result.reason
    assert "11 steps in a row" in result.reason
    assert "lower lr" in result.reason
    assert all(p.isfinite().all() for p in result.model.parameters())
    progress = [e for e in events if e["type"] == "progress"][-1]
    assert progress["step"] == result.totals["steps"], "the steps after it count nowhere"
    assert progress["samples"] == result.totals["samples"]
    assert progress["fraction"] == result.totals["steps"] / 1000
    assert (tmp_path / "artifacts" / "model.safetensors").exists()


@pytest.mark.parametrize("optimizer", ["adam", "mlhf"])
def test_bad_batches_are_skipped_and_a_run_resumes_among_them(
    config, points, tmp_path, optimizer, monkeypatch
):
    batch = Dataset.batch

    def spoiled(self, split, indices, device="cpu"):
        x, y = batch(self, split, indices, device)
        training = split == "train" and torch.is_grad_enabled()  # neither evaluated nor averaged
        bad = training and (indices % 100 == 7).any()
        return (x.clone().fill_(math.nan) if bad else x), y

    monkeypatch.setattr(Dataset, "batch", spoiled)
    run = config(optimizer, budget={"epochs": 2})
    whole = []
    undisturbed = train(run, on_event=whole.append)
    assert undisturbed.status == "succeeded"
    skipped = [v["skipped_steps"] for _, v in points(whole) if "skipped_steps" in v]
    assert skipped == list(range(1, len(skipped) + 1))
    assert len(skipped) >= 3
    assert undisturbed.summary["skipped_steps"]["last"] == len(skipped)
    losses = [v["batch_loss"] for _, v in points(whole) if "batch_loss" in v]
    assert len(losses) + len(skipped) == 20
    assert all(map(math.isfinite, losses))

    stop = next(s for s, v in points(whole) if "skipped_steps" in v)
    events = []
    train(run, events.append, tmp_path, should_stop=_stop_after(stop))
    path = next(e["path"] for e in events if e["type"] == "checkpoint")
    resumed = train(run, events.append, tmp_path, resume=path)
    assert torch.equal(_weights(resumed.model), _weights(undisturbed.model))
    assert resumed.summary == undisturbed.summary


def test_cpu_seconds_are_beside_the_wall_seconds_and_add_up_over_attempts(config, tmp_path):
    first, second = [], []
    asked = iter([False] * 6)
    train(
        config(),
        on_event=first.append,
        run_dir=tmp_path,
        should_stop=lambda: next(asked, True),
    )
    made = [e["path"] for e in first if e["type"] == "checkpoint"]
    result = train(config(), on_event=second.append, run_dir=tmp_path, resume=made[-1])

    def cpu(events):
        return [p["cpu_seconds"] for e in events if e["type"] == "points" for p in e["points"]]

    both = [*cpu(first), *cpu(second)]
    assert both == sorted(both)
    assert cpu(first)[-1] > 0
    assert result.totals["cpu_seconds"] >= cpu(second)[-1]
    assert 0 < result.totals["processor_share"] < 1.1
    resumed = [e for e in second if e["type"] in ("started", "progress")][:2]
    assert resumed[1]["type"] == "progress", "what it resumes from is told at once"
    assert resumed[1]["step"] == resumed[0]["resumed_from_step"] > 0


def test_artifacts_rebuild_the_model(config, tmp_path):
    events = []
    result = train(config(), on_event=events.append, run_dir=tmp_path)
    artifacts = {e["name"]: e for e in events if e["type"] == "artifact"}
    assert set(artifacts) == {"model.safetensors", "model.json", "config.json"}
    for e in artifacts.values():
        assert (tmp_path / e["path"]).stat().st_size == e["size"]
    loaded = load_model(tmp_path / "artifacts")
    x, _ = result.dataset.batch("test", torch.arange(20))
    with torch.no_grad():
        assert torch.equal(loaded.module(x), result.model(x))
    assert "root" not in json.loads(Path(tmp_path, "artifacts/config.json").read_text())["dataset"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"batch_size": 0}, "/batch_size"),
        ({"model": {"name": "nope"}}, "/model/name"),
        ({"optimizer": {"name": "adam", "params": {"lr": -1}}}, "/optimizer/params/lr"),
        ({"dataset": {"name": "nope"}}, "/dataset/name"),
    ],
)
def test_a_wrong_configuration_is_pointed_at(config, change, pointer):
    with pytest.raises(SpecError) as error:
        train(config(**change))
    assert error.value.pointer == pointer
