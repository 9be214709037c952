"""From a sweep to its runs."""

from typing import Any

import pytest
from pydantic import ValidationError

from mlhf.core.errors import SpecError
from mlhf_service.jobs.kinds.registry import parse
from mlhf_service.jobs.kinds.sweep import trials

BASE: dict[str, Any] = {
    "kind": "sweep",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "budget": {"epochs": 1},
}


def request(**fields: Any) -> Any:
    return parse({**BASE, **fields})


def test_a_grid_is_every_combination_for_every_seed() -> None:
    optimizers = [
        {"name": "adam", "params": {"beta1": 0.8}, "grid": {"lr": [1, 2], "eps": [3, 4]}},
        {"name": "sgd"},
    ]
    runs = trials(request(optimizers=optimizers, seeds=[7, 9]), 100)
    assert len(runs) == 2 * (4 + 1)
    assert [run.seed for run in runs] == [7] * 5 + [9] * 5
    assert runs[1].optimizer.params == {"beta1": 0.8, "lr": 1, "eps": 4}
    assert runs[1].label == "adam lr=1 eps=4 seed 7"
    assert runs[4].pointer == "/optimizers/1"


def test_too_many_runs_are_refused_before_they_are_listed() -> None:
    grid = {name: list(range(64)) for name in ("a", "b", "c", "d", "e", "f")}
    with pytest.raises(SpecError, match="at most 100") as caught:
        trials(request(optimizers=[{"name": "adam", "grid": grid}]), 100)
    assert caught.value.pointer == "/optimizers"


def test_seeds_must_differ() -> None:
    with pytest.raises(ValidationError, match="differ"):
        request(optimizers=[{"name": "sgd"}], seeds=[1, 1])
