"""From a request to the runs it stands for."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from mlhf.core.config import Component
from mlhf.core.errors import SpecError
from mlhf_service.jobs.schemas import JobRequest, SweepRequest, TrainRequest


@dataclass(frozen=True)
class PlannedRun:
    """One run to be made: its optimizer, its seed, and where in the request it comes from."""

    optimizer: Component
    seed: int
    label: str
    pointer: str


def plan(request: JobRequest, max_runs: int) -> list[PlannedRun]:
    """List the runs of a request, in the order they are trained.

    Seeds are the outer loop, so that an unfinished sweep compares all its optimizers.
    Raises SpecError when there are more than ``max_runs``.
    """
    if isinstance(request, TrainRequest):
        return [PlannedRun(request.optimizer, request.seed, request.optimizer.name, "/optimizer")]
    assert isinstance(request, SweepRequest)
    total = len(request.seeds) * sum(_size(o.grid) for o in request.optimizers)
    if total > max_runs:
        raise SpecError(
            "/optimizers", f"This sweep has {total} runs; at most {max_runs} are allowed."
        )
    variants = [
        (Component(name=entry.name, params={**entry.params, **chosen}), chosen, f"/optimizers/{i}")
        for i, entry in enumerate(request.optimizers)
        for chosen in _combinations(entry.grid)
    ]
    return [
        PlannedRun(optimizer, seed, _label(optimizer.name, chosen, seed), pointer)
        for seed in request.seeds
        for optimizer, chosen, pointer in variants
    ]


def _size(grid: dict[str, list[Any]]) -> int:
    size = 1
    for values in grid.values():
        size *= len(values)
    return size


def _combinations(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _label(name: str, chosen: dict[str, Any], seed: int) -> str:
    parts = [name, *(f"{key}={value}" for key, value in chosen.items()), f"seed {seed}"]
    return " ".join(parts)[:250]
