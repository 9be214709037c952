"""What is measured while a run trains, and what at its end."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mlhf import train
from mlhf.training.config import Evaluation
from mlhf.training.measured_samples import LEAST, MeasuredSamples, measured


class Sized:
    def __init__(self, train, test):
        self._sizes = {"train": train, "test": test}

    def size(self, split):
        return self._sizes[split]


@pytest.fixture
def data(tmp_path, config):
    """A run on 6,000 samples, sorted by class; every split of digits would be measured whole."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 2000)
    x = rng.normal(size=(6000, 5)) + y[:, None]
    np.savez(tmp_path / "values.npz", x=x, y=y)

    def make(**changes):
        return config(
            dataset={"name": "npz", "params": {"test_fraction": 0.2}, "root": str(tmp_path)},
            **{"budget": {"epochs": 2}, "batch_size": 100, **changes},
        )

    return make


def run(config):
    events = []
    result = train(config, events.append)
    points = [p for e in events if e["type"] == "points" for p in e["points"]]
    started = next(e for e in events if e["type"] == "started")
    evaluations = [(p["step"], p["values"]) for p in points if "train_loss" in p["values"]]
    return result, evaluations, started["environment"]["evaluation"]


def test_small_sets_are_measured_whole_and_large_ones_in_part():
    auto = Evaluation()
    assert measured(auto, 1437, 360) == {"train": 1437, "test": 360}
    # A tenth of 1.25 times the training samples, and never fewer than LEAST.
    assert measured(auto, 60_000, 10_000) == {"train": 6428, "test": 1071}
    assert measured(auto, 12_000, 2_000) == {"train": 1285, "test": LEAST}
    assert measured(auto, 100_000, 100) == {"train": 12_487, "test": 100}
    assert measured(auto, 60_000, 0) == {"train": 7500, "test": 0}
    assert measured(Evaluation(every_epochs=100.0), 60_000, 10_000)["train"] == 60_000
    assert measured(Evaluation(share=0.01), 60_000, 10_000)["train"] == 642
    assert measured(Evaluation(samples="all"), 60_000, 10_000)["train"] == 60_000
    assert measured(Evaluation(samples=700), 60_000, 500) == {"train": 700, "test": 500}


def test_the_samples_depend_on_the_size_of_the_split_alone():
    one, other = (MeasuredSamples(Evaluation(), Sized(60_000, 10_000)) for _ in range(2))
    for split, count in (("train", 6428), ("test", 1071)):
        rows = one.subset[split]
        assert torch.equal(rows, other.subset[split])
        assert len(rows.unique()) == count
        everything = torch.cat([rows, one.rest[split]]).sort().values
        assert torch.equal(everything, torch.arange(one._sizes[split]))
    tenths = torch.bincount(one.subset["train"] // 6000)
    assert tenths.min() > 500, "not spread over a sorted split"
    assert one.describe()["train"] == {"samples": 6428, "of": 60_000}
    assert not MeasuredSamples(Evaluation(), Sized(1000, 100)).partial


def test_the_whole_set_is_measured_at_the_end_and_the_weights_are_the_same(data):
    part, measured_in_part, told = run(data())
    whole, measured_whole, all_of_it = run(data(evaluation={"samples": "all"}))
    assert told == {
        "train": {"samples": 512, "of": 4800},
        "test": {"samples": 512, "of": 1200},
    }
    assert all_of_it["train"] == {"samples": 4800, "of": 4800}
    for a, b in zip(
        part.model.state_dict().values(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    assert [step for step, _ in measured_in_part] == [step for step, _ in measured_whole]
    for (_, values), (_, exact) in zip(measured_in_part[:-1], measured_whole[:-1], strict=True):
        assert not [name for name in values if name.startswith("whole_")]
        assert values["train_loss"] != exact["train_loss"]
        assert values["train_loss"] == pytest.approx(exact["train_loss"], rel=0.1)
    last, exact = measured_in_part[-1][1], measured_whole[-1][1]
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert last[f"whole_{name}"] == pytest.approx(exact[name], rel=1e-6)
    assert "whole_train_loss" not in exact
    assert part.summary["whole_test_loss"]["last"] == last["whole_test_loss"]


def test_so_many_samples_and_so_many_at_most(data):
    _, evaluations, told = run(data(evaluation={"samples": 300}))
    assert told["test"] == {"samples": 300, "of": 1200}
    assert "whole_train_loss" in evaluations[-1][1]
    _, evaluations, told = run(data(evaluation={"max_samples": 300}))
    assert told["test"] == {"samples": 300, "of": 1200}
    assert "whole_train_loss" not in evaluations[-1][1]
    with pytest.raises(ValidationError, match="samples or max_samples"):
        Evaluation(samples="all", max_samples=3)


@pytest.mark.parametrize("metric", ["train_loss", "running_loss"])
def test_a_target_is_reached_when_the_whole_set_has_reached_it(data, metric):
    changes = {"budget": {"epochs": 5}, "evaluation": {"every_epochs": 0.25}}
    _, evaluations, _ = run(data(**changes))
    value = evaluations[8][1][metric]
    target = {"metric": metric, "value": value, "stop": True}
    result, seen, _ = run(data(target=target, **changes))
    assert result.reason == "target"
    step, last = seen[-1]
    assert step == result.totals["steps"]
    assert [step for step, _ in seen].count(step) == 1
    if metric == "train_loss":
        assert last["whole_train_loss"] <= value
        for _, values in seen[:-1]:  # where the part had reached it, the whole was measured
            assert values["train_loss"] > value or values["whole_train_loss"] > value
    assert "whole_train_loss" in result.summary


def test_interrupted_runs_end_with_the_same_points(data, tmp_path):
    _, undisturbed, _ = run(data())
    points = []

    def collect(event):
        if event["type"] == "points":
            points.extend((p["step"], p["values"]) for p in event["points"])

    asked = iter([False] * 70 + [True] * 10**6)
    first = train(data(), collect, tmp_path, should_stop=lambda: next(asked))
    assert first.status == "interrupted"
    (checkpoint, *_) = sorted((tmp_path / "checkpoints").iterdir(), reverse=True)
    assert train(data(), collect, tmp_path, resume=checkpoint).status == "succeeded"
    assert [(s, v) for s, v in points if "train_loss" in v] == undisturbed
