"""Optimizers × their grids × seeds, each a run of kind ``train``."""

from itertools import product
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field

from mlhf.core.config import Component
from mlhf.core.errors import SpecError
from mlhf_service.context import Context
from mlhf_service.jobs.kinds.inputs import prepare_training
from mlhf_service.jobs.kinds.protocol import JobKind, Plan, Prepared
from mlhf_service.jobs.kinds.requests import Seeds, TrainingRequest
from mlhf_service.jobs.kinds.train import Trial, plan_trials


class SweepOptimizer(Component):
    """An optimizer, and the hyperparameters to try: every combination of ``grid``."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1, max_length=64)]] = Field(
        default_factory=dict, max_length=8
    )


class SweepRequest(TrainingRequest):
    """Optimizers × their grids × seeds, each one run."""

    kind: Literal["sweep"]
    optimizers: Annotated[list[SweepOptimizer], Field(min_length=1, max_length=64)]
    seeds: Seeds = Field(default=[0])


class Sweep(JobKind[SweepRequest]):
    """Many optimizers on one task."""

    name, request = "sweep", SweepRequest

    def plan(self, context: Context, request: SweepRequest) -> Plan:
        planned = trials(request, context.settings.max_sweep_runs)
        return plan_trials(context, request, planned)

    def prepare(self, context: Context, config: dict[str, Any]) -> Prepared:
        return prepare_training(context, config)


def trials(request: SweepRequest, limit: int) -> list[Trial]:
    """List the runs of a sweep, in the order they are trained.

    Seeds are the outer loop, so that an unfinished sweep compares all its optimizers.
    Raises SpecError when there are more than ``limit``.
    """
    total = len(request.seeds) * sum(
        prod(map(len, entry.grid.values())) for entry in request.optimizers
    )
    if total > limit:
        raise SpecError("/optimizers", f"This sweep has {total} runs; at most {limit} are allowed.")
    variants = [
        (Component(name=entry.name, params={**entry.params, **chosen}), chosen, places, i)
        for i, entry in enumerate(request.optimizers)
        for chosen, places in _combinations(entry.grid)
    ]
    return [
        Trial(optimizer, seed, f"/optimizers/{i}", _label(optimizer.name, chosen, seed), places)
        for seed in request.seeds
        for optimizer, chosen, places, i in variants
    ]


def _combinations(grid: dict[str, list[Any]]) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Each choice of a value of every parameter, and where these stand."""
    return [
        (
            {name: value for name, (_, value) in zip(grid, chosen, strict=True)},
            {name: f"/grid/{name}/{at}" for name, (at, _) in zip(grid, chosen, strict=True)},
        )
        for chosen in product(*(enumerate(values) for values in grid.values()))
    ]


def _label(name: str, chosen: dict[str, Any], seed: int) -> str:
    parts = [name, *(f"{key}={value}" for key, value in chosen.items()), f"seed {seed}"]
    return " ".join(parts)[:250]
