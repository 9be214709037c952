"""Whole meta-training runs: the curves, resuming, what they yield, and what they refuse."""

import json
import os
import subprocess
import sys

import pytest
import torch

from mlhf import MLHF, MetaCheckpoint, meta_train
from mlhf.core.errors import DataError, SpecError
from mlhf.core.seeds import derive
from mlhf.meta.config import MetaTrainConfig
from mlhf.meta.paper_learner import PaperLearner
from mlhf.meta.run import _build_learner
from mlhf.models.build import build
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint
from mlhf.optimizers.mlhf.paper.optimizer import fresh_networks
from tests.waiting import DEADLINE

DIGITS = {"name": "digits", "params": {"train_samples": 200, "test_samples": 50}}
MODEL = {"name": "mlp", "params": {"hidden": [6], "batch_norm": True, "dropout": 0.1}}


def _config(optimizer="mlhf", **changes):
    return {
        "optimizer": optimizer,
        "variant": "paper",
        "tasks": [
            {
                "model": MODEL,
                "dataset": DIGITS,
                "batch_sizes": [8, 16],
                "initial_scales": [1.0, 0.5],
            }
        ],
        "iterations": 10,
        "unroll": 2,
        "threads": 1,
        "device": "cpu",
        "seed": 3,
        **changes,
    }


def _stop_after(steps):
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps


def _points(events):
    return [(p["step"], p["values"]) for e in events if e["type"] == "points" for p in e["points"]]


def _equal(a, b):
    return all(
        torch.equal(v, b.weights[n][k]) for n, ws in a.weights.items() for k, v in ws.items()
    )


PES = {"name": "pes", "pairs": 2, "horizon": 6}


@pytest.mark.parametrize(
    ("optimizer", "changes"), [("mlhf", {}), ("l2l", {}), ("mlhf", {"estimator": PES})]
)
def test_five_and_five_are_ten_iterations(optimizer, changes, tmp_path):
    run = _config(optimizer, **changes)
    whole_events, first, second = [], [], []
    whole = meta_train(run, on_event=whole_events.append)
    torch.manual_seed(77)  # what the caller drew must not matter
    stopped = meta_train(run, on_event=first.append, run_dir=tmp_path, should_stop=_stop_after(5))
    assert stopped.status == "interrupted"
    (saved,) = [e for e in first if e["type"] == "checkpoint"]
    assert first[-1]["type"] == "interrupted"
    assert first[-1]["step"] == saved["step"] == 5
    rest = meta_train(run, on_event=second.append, run_dir=tmp_path, resume=saved["path"])
    assert second[0]["resumed_from_step"] == 5
    assert _equal(rest.checkpoint, whole.checkpoint)
    assert _points(first) + _points(second) == _points(whole_events)
    assert rest.summary == whole.summary
    assert rest.totals["samples"] == whole.totals["samples"]


def test_curves_and_artifacts(tmp_path):
    events = []
    result = meta_train(_config(), on_event=events.append, run_dir=tmp_path)
    assert result.status == "succeeded"
    points = _points(events)
    assert [step for step, _ in points] == list(range(1, 11))
    assert {"meta_loss_p", "meta_loss_s", "damping", "cg_residual", "depth"} <= set(points[0][1])
    assert events[0]["type"] == "started"
    assert events[0]["total_steps"] == 10
    assert events[-1]["type"] == "finished"
    assert events[-1]["totals"]["steps"] == 10
    artifacts = {e["name"]: e for e in events if e["type"] == "artifact"}
    assert set(artifacts) == {"meta_checkpoint.safetensors", "meta_checkpoint.json"}
    json.dumps(events, allow_nan=False)
    lineage = json.loads((tmp_path / "artifacts/meta_checkpoint.json").read_text())
    assert lineage["iterations"] == 10
    assert lineage["kinds"] == [2, 3, 4, 5]
    assert len(lineage["config"]["tasks"][0]["data_digest"]) == 64
    assert "root" not in lineage["config"]["tasks"][0]["dataset"]
    loaded = load_meta_checkpoint(tmp_path / "artifacts/meta_checkpoint.safetensors", "mlhf_paper")
    assert _equal(loaded, result.checkpoint)
    fresh = meta_train(_config(iterations=1, lr=1e-12, weight_decay=0.0))
    assert not _equal(fresh.checkpoint, result.checkpoint)
    from mlhf.data.loading import load

    model = build(MODEL["name"], MODEL["params"], load("digits", {}).info, 0)
    MLHF(model, meta_checkpoint=result.checkpoint, variant="paper")


@pytest.mark.slow
def test_it_learns():
    """Preconditioning: after a few meta-steps from strange weights, l_p is lower."""
    events = []
    run = _config(iterations=60, lr=0.03, unroll=3, replay={"keep": 0.0, "fresh": 1.0})
    meta_train(run, on_event=events.append)
    losses = [v["meta_loss_p"] for _, v in _points(events)]
    assert sum(losses[-15:]) < sum(losses[:15])


def test_it_goes_on_from_a_meta_checkpoint(tmp_path):
    path = tmp_path / "m.safetensors"
    made = meta_train(_config(iterations=2)).checkpoint
    made.save(path)
    kept = meta_train(_config(iterations=1, lr=1e-30, weight_decay=0.0, start=str(path)))
    trained = [2, 3, 4, 5]
    for name, values in made.weights.items():
        for key, v in values.items():
            assert torch.equal(v[trained], kept.checkpoint.weights[name][key][trained])
    assert kept.checkpoint.lineage["config"]["start"] == "m.safetensors"


@pytest.mark.slow
def test_the_trainer_process_runs_it(tmp_path):
    run = {"kind": "meta_train", "config": _config(iterations=3), "resume": None}
    (tmp_path / "run.json").write_text(json.dumps(run))
    done = subprocess.run(
        [sys.executable, "-m", "mlhf.runner", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=DEADLINE,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert lines[-1]["type"] == "finished"
    made = load_meta_checkpoint(tmp_path / "artifacts/meta_checkpoint.safetensors", "mlhf_paper")
    assert isinstance(made, MetaCheckpoint)
    assert str(tmp_path) not in json.dumps(dict(made.lineage))
    assert made.lineage["command"].startswith("python -m mlhf.runner")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"iterations": 0}, "/iterations"),
        ({"estimator": {"name": "pes", "sigma": 0}}, "/estimator/sigma"),
        ({"tasks": [{"model": {"name": "no"}, "dataset": DIGITS}]}, "/tasks/0/model/name"),
        ({"tasks": [{"model": MODEL, "dataset": {"name": "no"}}]}, "/tasks/0/dataset/name"),
        (
            {"tasks": [{"model": MODEL, "dataset": DIGITS, "batch_sizes": [201]}]},
            "/tasks/0/batch_sizes",
        ),
    ],
)
def test_a_wrong_configuration_is_pointed_at(changes, pointer):
    with pytest.raises(SpecError) as error:
        meta_train(_config(**changes))
    assert error.value.pointer == pointer


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, (4, 0.25, 0.02)), ({"pcg_iterations": 7, "step_clip": 0.4, "noise": 0.3}, (7, 0.4, 0.3))],
    ids=["the paper's", "others"],
)
def test_the_unrolls_settings_are_the_configurations(changes, expected):
    learner = _build_learner(MetaTrainConfig.model_validate(_config(**changes)), None)
    assert isinstance(learner, PaperLearner)
    assert (learner._iterations, learner._step_clip, learner._noise) == expected
    assert learner._lr == 1.0
    if not changes:
        own = PaperLearner()
        assert (own._iterations, own._step_clip, own._noise, own._lr) == (*expected, 1.0)


@pytest.mark.gpu
def test_an_iteration_on_a_gpu_is_that_on_a_cpu():
    """Batches, noise and first weights are drawn on the CPU, whatever the device."""
    model = {"name": "mlp", "params": {"hidden": [6], "batch_norm": True}}
    tasks = [{"model": model, "dataset": DIGITS, "batch_sizes": [16]}]
    here, there = (
        meta_train(_config(tasks=tasks, iterations=1, device=device)) for device in ("cpu", "cuda")
    )
    assert there.status == "succeeded"
    for name, entry in here.summary.items():
        assert there.summary[name]["last"] == pytest.approx(entry["last"], rel=1e-2), name
    fresh = fresh_networks(derive(3, "networks") >> 2)
    for name, values in there.checkpoint.weights.items():
        assert all(v.device.type == "cpu" for v in values.values())
        assert not torch.equal(values["w1"], fresh[name].w1)


def test_another_optimizers_meta_checkpoint_is_no_start(tmp_path):
    MetaCheckpoint("l2l", {}, {}).save(tmp_path / "m")
    with pytest.raises(DataError, match="l2l"):
        meta_train(_config(start=str(tmp_path / "m")))
