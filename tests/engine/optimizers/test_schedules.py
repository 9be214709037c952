"""Learning rates over a run."""

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from mlhf.core.errors import SpecError
from mlhf.optimizers.registry import build
from mlhf.optimizers.schedules import Schedule
from mlhf.optimizers.specs import OPTIMIZERS

LR = {
    "constant": {},
    "linear": {"final": 0.1},
    "cosine": {"final": 0.2},
    "step": {"at": [0.3, 0.6]},
}


def _factors(spec, total):
    schedule = TypeAdapter(Schedule).validate_python(spec)
    return [schedule.factor(k, total) for k in range(total)]


def test_each_follows_its_formula():
    assert _factors({"type": "constant"}, 4) == [1, 1, 1, 1]
    assert _factors({"type": "linear", "final": 0.2}, 4) == pytest.approx([1, 0.8, 0.6, 0.4])
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)]
    assert _factors({"type": "cosine", "final": 0.1}, 10) == pytest.approx(expected)
    steps = _factors({"type": "step", "at": [0.6, 0.76, 0.88]}, 100)
    assert [steps[k] for k in (59, 60, 75, 76, 87, 88, 99)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


@pytest.mark.parametrize("kind", LR)
def test_a_warm_up_rises_to_the_whole_rate_and_the_schedule_takes_the_rest(kind):
    spec = {"type": kind, **LR[kind]}
    warm = _factors({**spec, "warmup": 0.2}, 50)
    assert warm[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert warm[10:] == pytest.approx(_factors(spec, 40))
    assert len(_factors({**spec, "warmup": 0.99}, 1)) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "exponential"},
        {"type": "cosine", "final": 2},
        {"type": "step", "at": [0.6, 0.3]},
        {"type": "step", "at": []},
        {"type": "constant", "warmup": 1.0},
        {"type": "constant", "final": 0.1},
    ],
)
def test_wrong_ones_are_refused(spec):
    with pytest.raises(ValidationError):
        TypeAdapter(Schedule).validate_python(spec)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_with_a_rate_follows_its_schedule(name):
    if "schedule" not in OPTIMIZERS[name].params.model_fields:
        pytest.skip("has no learning rate")
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    # On a rate of nearly 0 nothing may move; before it, everything does.
    schedule = {"type": "step", "at": [0.5], "gamma": 1e-12}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    # One iteration a step, or eight samples are fitted at once.
    params = {"iterations": 1} if name == "lbfgs" else {}
    optimizer = build(name, {"schedule": schedule, **params}, model, total_steps=8)
    moved, rates = [], []
    for _ in range(8):
        before = [p.detach().clone() for p in model.parameters()]
        rates.append(optimizer.step(x, y).stats["learning_rate"])
        after = [p.detach() for p in model.parameters()]
        moved.append(max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True)))
    full = OPTIMIZERS[name].params().lr
    assert rates == pytest.approx([full] * 4 + [full * 1e-12] * 4)
    assert min(moved[1:4]) > 1e-5  # SOAP's first step only sets its bases
    # An average still moves; the rate of L-BFGS is where its line search starts.
    if name not in ("schedule_free_adamw", "lbfgs"):
        assert max(moved[4:]) < 1e-8


def test_a_schedule_needs_to_know_how_long_the_run_is():
    model = nn.Linear(2, 2)
    for schedule in ({"type": "cosine"}, {"type": "constant", "warmup": 0.1}):
        with pytest.raises(SpecError, match="epochs, steps or samples") as error:
            build("adam", {"schedule": schedule}, model)
        assert error.value.pointer == "/params/schedule"
    build("adam", {}, model)


def test_a_pointer_names_the_wrong_field():
    with pytest.raises(SpecError) as error:
        build("adam", {"schedule": {"type": "step", "gamma": 2.0}}, nn.Linear(2, 2))
    assert error.value.pointer == "/params/schedule/gamma"
