"""Meta-training of MLHF's Kronecker form: its meta-loss, its whole runs, and what is refused."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from mlhf import MetaCheckpoint, meta_train
from mlhf.core.errors import SpecError
from mlhf.meta import kronecker_learner
from mlhf.meta.kronecker_learner import KroneckerLearner, meta_loss
from mlhf.meta.task_models import TaskModels
from mlhf.optimizers.learned.kinds import by_kind
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF, fresh_networks
from tests.engine.meta.conftest import Plain

DIGITS = {"name": "digits", "params": {"train_samples": 100, "test_samples": 50}}
MODEL = {"name": "mlp", "params": {"hidden": [6], "batch_norm": True, "dropout": 0.1}}


def _config(**changes):
    return {
        "tasks": [{"model": MODEL, "dataset": DIGITS, "batch_sizes": [8, 16]}],
        "iterations": 4,
        "unroll": 5,
        "estimator": {"name": "pes", "pairs": 2},
        "threads": 1,
        "device": "cpu",
        "seed": 3,
        **changes,
    }


def _points(events):
    return [(p["step"], p["values"]) for e in events if e["type"] == "points" for p in e["points"]]


def _plain(losses, steps):
    """The meta-loss in plain Python: a missing, bad or undefined loss is ten times the first."""
    found = []
    for k in range(steps):
        ratio = losses[k] / losses[0] if k < len(losses) else 10.0
        found.append(math.log((ratio if ratio < 10 else 10.0) + 1e-5))
    last = found[steps - max(1, round(0.2 * steps)) :]
    return math.asinh(sum(found) / steps) + math.asinh(sum(last) / len(last))


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ([2.0, 1.0, 0.5, 0.7, 0.1, 0.05, 0.02, 0.03, 0.01, 0.0], 10),
        ([2.0], 1),
        ([2.0, 1.0], 2),
        ([2.0, 30.0, 1.0, 19.9], 4),
        ([2.0, 1.0, 5e9], 12),
        ([2.0, 1.0, math.inf], 12),
        ([2.0, 1.0, math.nan], 12),
    ],
    ids=["finished", "one step", "two steps", "back again", "diverged", "infinite", "undefined"],
)
def test_the_meta_loss_is_that_of_plain_python(losses, steps):
    found = float(meta_loss(torch.tensor(losses, dtype=torch.float64), steps))
    assert found == pytest.approx(_plain(losses, steps), rel=1e-12)


def test_a_run_is_the_optimizers_own():
    """Loud networks, so that they are seen to be used; the point it began from is kept."""
    learner, steps = KroneckerLearner(), 47  # a look at each second
    with torch.no_grad():
        for i, network in enumerate(learner.networks.values()):
            for p in network.parameters():
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) / 4)
    task = Plain(torch.float32)
    models = TaskModels(task, 0, 1)
    generator = torch.Generator().manual_seed(3)
    batches = [task.batch(generator) for _ in range(steps + 1)]
    start = models.initialize(5)
    theta = start.theta.clone()
    with torch.no_grad():
        found = learner.unroll(models, start, batches, torch.Generator().manual_seed(8))

    weights = {name: dict(net.state_dict()) for name, net in learner.networks.items()}
    model = task.model(5).train()
    seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(8)))
    optimizer = KroneckerMLHF(model, "cross_entropy", MetaCheckpoint("mlhf", weights), seed=seed)
    losses = []
    for k, (x, y) in enumerate(batches[:steps]):
        loss = float(optimizer.step(x, y).loss)
        if k == 0:
            losses.append(loss)
        if k % 2:  # what would be kept, on the next batch, as in training
            optimizer.eval_mode()
            x, y = batches[k + 1]
            z = copy.deepcopy(model)(x).detach()
            losses.append(float(torch.nn.functional.cross_entropy(z, y)))
            optimizer.train_mode()
    mine = torch.cat([p.detach().reshape(-1) for p in by_kind(model)[0]])
    assert torch.equal(found.end.theta, mine)
    for name, buffer in model.named_buffers():
        assert torch.equal(found.end.buffers[name], buffer)
    assert found.end.steps == steps
    assert torch.equal(start.theta, theta)
    assert set(found.losses) == {"damping", "step"}
    for loss in (*found.losses.values(), found.error):
        assert float(loss) == pytest.approx(_plain(losses, 24), rel=1e-5)


def test_a_run_that_diverged_is_cut_and_counts_as_bad(monkeypatch):
    seen, looked = [], []

    class Scripted:
        loss_function = "cross_entropy"

        def __init__(self, model, *_, **__):
            self.model = model

        def step(self, x, y):
            seen.append(2.0 if len(seen) < 15 else 21.0)
            return SimpleNamespace(loss=torch.tensor(seen[-1]))

        def eval_mode(self):
            z = self.model(x).detach()
            looked.append(float(torch.nn.functional.cross_entropy(z, y)))

        def train_mode(self):
            pass

    monkeypatch.setattr(kronecker_learner, "KroneckerMLHF", Scripted)
    task = Plain(torch.float32)
    models = TaskModels(task, 0, 1)
    x, y = task.batch(torch.Generator().manual_seed(0))
    batches = [(x, y)] * 61
    found = KroneckerLearner().unroll(models, models.initialize(5), batches, torch.Generator())
    assert len(seen) == 18  # found at the sixth look, of one each third step
    assert float(found.error) == pytest.approx(_plain([2.0, *looked], 21), rel=1e-5)


def test_two_and_two_are_four_iterations(tmp_path):
    whole_events, first, second = [], [], []
    whole = meta_train(_config(), on_event=whole_events.append)
    torch.manual_seed(77)  # what the caller drew must not matter
    asked = iter(range(100))
    stopped = meta_train(_config(), first.append, tmp_path, should_stop=lambda: next(asked) >= 2)
    assert stopped.status == "interrupted"
    (saved,) = [e for e in first if e["type"] == "checkpoint"]
    rest = meta_train(_config(), second.append, tmp_path, resume=saved["path"])
    assert second[0]["resumed_from_step"] == saved["step"] == 2
    assert _points(first) + _points(second) == _points(whole_events)
    assert rest.totals["samples"] == whole.totals["samples"]
    fresh = fresh_networks()
    for name, values in whole.checkpoint.weights.items():
        for key, value in values.items():
            assert torch.equal(rest.checkpoint.weights[name][key], value)
            assert not torch.equal(fresh[name].state_dict()[key], value)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"estimator": {"name": "bptt"}}, "/estimator"),
        ({"estimator": {"name": "pes", "horizon": 10}}, "/estimator"),
        ({"clip": 1.0}, "/clip"),
    ],
)
def test_what_does_not_fit_whole_runs_from_zero_is_refused(changes, pointer):
    with pytest.raises(SpecError) as error:
        meta_train(_config(**changes))
    assert error.value.pointer == pointer


@pytest.mark.parametrize("changes", [{}, {"clip": 1.0}])
def test_the_paper_variant_takes_both(changes):
    bptt = {"estimator": {"name": "bptt"}, "variant": "paper", "iterations": 1, "unroll": 2}
    assert meta_train(_config(**bptt, **changes)).status == "succeeded"


@pytest.mark.long
def test_it_learns(tmp_path):
    """From eight times the untrained damping, a few iterations get most of the way back."""
    weights = {name: dict(net.state_dict()) for name, net in fresh_networks().items()}
    weights["damping"]["kinds"] += 1.5
    MetaCheckpoint("mlhf", weights).save(tmp_path / "bad.safetensors")
    task = {"model": {"name": "mlp", "params": {"hidden": [8]}}, "dataset": DIGITS}
    run = _config(
        tasks=[{**task, "batch_sizes": [16]}],
        iterations=8,
        unroll=15,
        lr=0.2,
        decay_at=[],
        estimator={"name": "pes", "pairs": 4},
        replay={"fresh": 1.0},
        start=str(tmp_path / "bad.safetensors"),
        seed=0,
    )
    events = []
    meta_train(run, on_event=events.append)
    losses = [v["meta_loss"] for _, v in _points(events)]
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.5
