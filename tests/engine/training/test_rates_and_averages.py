"""Runs whose learning rate follows a schedule, and runs whose weights are averaged."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mlhf import load_model, train
from mlhf.core.errors import SpecError
from mlhf.optimizers.registry import build
from mlhf.optimizers.schedules import Cosine
from mlhf.training import averaging

AVERAGING = {"name": "schedule_free_adamw", "params": {"lr": 0.01}}


def test_a_schedule_on_a_run_of_seconds_alone_is_refused(config):
    optimizer = {"name": "adam", "params": {"schedule": {"type": "cosine"}}}
    with pytest.raises(SpecError) as error:
        train(config(optimizer, budget={"wall_seconds": 5.0}))
    assert error.value.pointer == "/optimizer/params/schedule"
    train(config(optimizer, budget={"wall_seconds": 60.0, "steps": 3}))


def test_a_run_tells_its_rate_and_goes_on_with_it_when_resumed(config, points, tmp_path):
    schedule = {"type": "cosine", "warmup": 0.2}
    run = config({"name": "adam", "params": {"lr": 0.01, "schedule": schedule}})
    events, asked = [], iter(range(1000))
    train(run, on_event=events.append, run_dir=tmp_path, should_stop=lambda: next(asked) > 14)
    saved = [e for e in events if e["type"] == "checkpoint"][-1]
    assert 0 < saved["step"] < 20
    train(run, on_event=events.append, run_dir=tmp_path, resume=saved["path"])
    rates = [v["learning_rate"] for _, v in points(events) if "learning_rate" in v]
    expected = [0.01 * f for f in (Cosine(warmup=0.2).factor(k, 20) for k in range(20))]
    assert rates == pytest.approx(expected)


class _Data:
    """Samples in an order that would mislead whoever takes the first ones."""

    def __init__(self, n=96):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(n, 5, generator=generator).sort(0).values
        self.y = torch.randint(0, 3, (n,), generator=generator)

    def size(self, split):
        return len(self.x)

    def batch(self, split, indices, device="cpu"):
        return self.x[indices], self.y[indices]


def _averaging_problem():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
    )
    optimizer, data = build("schedule_free_adamw", {"lr": 0.1}, model), _Data()
    for _ in range(20):
        optimizer.step(data.x, data.y)
    return model, optimizer, data


def test_the_average_is_what_the_definition_says():
    """x is the mean of the base iterates z, weighted alike at a constant rate (β₁ drops out)."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    x, y = torch.randn(30, 4).double(), torch.randint(0, 3, (30,))
    optimizer = build("schedule_free_adamw", {"lr": 0.05, "beta1": 0.9, "beta2": 0.99}, model)
    z = [p.detach().clone() for p in model.parameters()]
    average, v = [p.clone() for p in z], [torch.zeros_like(p) for p in z]
    for k in range(1, 8):
        at = [(0.1 * a + 0.9 * b).requires_grad_() for a, b in zip(z, average, strict=True)]
        loss = cross_entropy(x @ at[0].T + at[1], y)
        for i, g in enumerate(torch.autograd.grad(loss, at)):
            v[i] = 0.99 * v[i] + 0.01 * g**2
            z[i] = z[i] - 0.05 * g / ((v[i] / (1 - 0.99**k)).sqrt() + 1e-8)
            average[i] = average[i] + (z[i] - average[i]) / k
        optimizer.step(x, y)
    optimizer.eval_mode()
    for mine, theirs in zip(model.parameters(), average, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_looking_at_the_average_changes_no_bit():
    model, optimizer, data = _averaging_problem()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with averaging.averaged(model, optimizer, data, torch.device("cpu"), 16):
        inside = copy.deepcopy(model.state_dict())
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(inside["0.weight"], before["0.weight"])
    assert all(layer.training for layer in model)
    assert model[1].momentum == 0.1


def test_the_averages_batch_norm_has_its_own_statistics():
    model, optimizer, data = _averaging_problem()
    averaging.keep_average(model, optimizer, data, torch.device("cpu"), 16)
    with torch.no_grad():
        seen = model[0](data.x)
    assert torch.allclose(model[1].running_mean, seen.mean(0), atol=1e-5)
    # Six batches of 16, each spread over the sorted split, so that their variance is its own.
    assert torch.allclose(model[1].running_var, seen.var(0), rtol=0.15)


def test_other_optimizers_are_left_alone():
    model, _, data = _averaging_problem()
    optimizer = build("adam", {}, model)
    before = copy.deepcopy(model.state_dict())
    averaging.keep_average(model, optimizer, data, torch.device("cpu"), 16)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_saved_network_is_the_one_that_was_measured(config, tmp_path):
    result = train(config(AVERAGING), run_dir=tmp_path)
    loaded = load_model(tmp_path / "artifacts").module
    x, y = result.dataset.batch("train", torch.arange(300))
    with torch.no_grad():
        loss = float(cross_entropy(loaded(x), y))
    assert loss == pytest.approx(result.summary["train_loss"]["last"], rel=1e-5)


def test_every_optimizer_is_first_measured_at_the_same_point(config, points):
    first = []
    for optimizer in ("adam", AVERAGING):
        events = []
        train(config(optimizer, budget={"steps": 1}), on_event=events.append)
        first.append(points(events)[0])
    assert first[0] == first[1]
