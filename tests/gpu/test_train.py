"""Whole runs on a GPU: recorded as such, resumed bit for bit."""

import pytest
import torch

from mlhf import meta_train, train

pytestmark = pytest.mark.gpu


def _config(optimizer, **changes):
    return {
        "model": {"name": "mlp", "params": {"hidden": [16], "batch_norm": True, "dropout": 0.2}},
        "dataset": {"name": "digits", "params": {"train_samples": 300, "test_samples": 50}},
        "optimizer": optimizer,
        "budget": {"steps": 24},
        "batch_size": 32,
        "seed": 3,
        "device": "cuda",
        **changes,
    }


OPTIMIZERS = [
    {"name": "adamw"},
    {"name": "hf_adam"},
    {"name": "mlhf"},
    {"name": "mlhf", "params": {"variant": "paper"}},
    {"name": "kfac"},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
def test_an_interrupted_run_ends_as_an_undisturbed_one(optimizer, tmp_path):
    events = []
    whole = train(_config(optimizer), events.append, tmp_path / "whole")
    started = next(e for e in events if e["type"] == "started")
    assert started["environment"]["device"] == "cuda"
    assert started["environment"]["device_name"] == torch.cuda.get_device_name()

    seen = []

    def after_ten_steps():
        seen.append(1)
        return len(seen) > 10

    folder, told = tmp_path / "parts", []
    first = train(_config(optimizer), told.append, folder, should_stop=after_ten_steps)
    assert first.status == "interrupted"
    newest = [e for e in told if e["type"] == "checkpoint"][-1]["path"]
    second = train(_config(optimizer), told.append, folder, resume=newest)
    assert second.status == whole.status == "succeeded"
    for mine, theirs in zip(
        second.model.state_dict().values(), whole.model.state_dict().values(), strict=True
    ):
        assert mine.is_cuda
        assert torch.equal(mine, theirs)


def test_meta_training_by_evolution_runs_on_the_device():
    task = {
        "model": {"name": "mlp", "params": {"hidden": [12]}},
        "dataset": {"name": "digits", "params": {"train_samples": 200, "test_samples": 20}},
    }
    result = meta_train(
        {
            "optimizer": "mlhf",
            "tasks": [task],
            "iterations": 2,
            "unroll": 6,
            "replay": {"fresh": 1.0},
            "seed": 1,
            "device": "cuda",
        }
    )
    assert result.status == "succeeded"
    for values in result.checkpoint.weights.values():
        assert all(not v.is_cuda and bool(torch.isfinite(v).all()) for v in values.values())
