"""Optimizers × their settings × seeds, each a run of kind ``train``; tuned first if asked for."""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from mlhf.core.config import Component, added_field
from mlhf.core.errors import SpecError
from mlhf_service.comparisons.tuning import PHASE, TUNING
from mlhf_service.context import Context
from mlhf_service.jobs.kinds import tuned
from mlhf_service.jobs.kinds.inputs import prepare_training
from mlhf_service.jobs.kinds.protocol import JobKind, Plan, Prepared, Release
from mlhf_service.jobs.kinds.requests import Seeds, TrainingRequest
from mlhf_service.jobs.kinds.train import Trial, plan_trials
from mlhf_service.runs.models import Run


class SweepOptimizer(Component):
    """An optimizer, and what to try: every combination of ``grid``, or each of ``settings``."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1, max_length=64)]] = Field(
        default_factory=dict, max_length=8
    )
    settings: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=64)] | None = (
        added_field(
            None,
            description="Hyperparameters to try together, in place of `grid`: each is one choice.",
        )
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.grid and self.settings is not None:
            raise ValueError("give grid or settings, not both")
        return self

    @property
    def variants(self) -> int:
        """How many choices there are."""
        if self.settings is not None:
            return len(self.settings)
        return prod(map(len, self.grid.values()))


class SweepRequest(TrainingRequest):
    """Optimizers × their settings × seeds, each one run."""

    kind: Literal["sweep"]
    optimizers: Annotated[list[SweepOptimizer], Field(min_length=1, max_length=64)]
    seeds: Seeds = Field(default=[0])
    tune: tuned.Tuning | None = added_field(
        None,
        description="Try the settings on other seeds first, and train the best of each optimizer "
        "on `seeds`. Absent: every setting is trained on `seeds`.",
    )

    @model_validator(mode="after")
    def _seeds_apart(self) -> Self:
        if self.tune is not None and (both := set(self.seeds) & set(self.tune.seeds)):
            raise ValueError(
                f"tune.seeds and seeds share {min(both)}: what chose a setting cannot judge it"
            )
        return self


class Sweep(JobKind[SweepRequest]):
    """Many optimizers on one task."""

    name, request = "sweep", SweepRequest
    holds_back = True

    def plan(self, context: Context, request: SweepRequest) -> Plan:
        planned = trials(request, context.settings.max_sweep_runs)
        return plan_trials(context, request, planned)

    def prepare(self, context: Context, config: dict[str, Any]) -> Prepared:
        return prepare_training(context, config)

    def with_dependencies(self, request: SweepRequest, positions: set[int]) -> set[int]:
        if request.tune is None:
            return positions
        return tuned.together(_places(request), positions)

    def released(
        self, session: Session, request: SweepRequest, runs: Sequence[Run], held: Sequence[Run]
    ) -> Sequence[Release]:
        if request.tune is None:
            return ()
        return tuned.released(session, runs, held, _places(request), request.tune.metric)


def trials(request: SweepRequest, limit: int) -> list[Trial]:
    """List the runs of a sweep, in the order they are trained.

    Seeds are the outer loop, so that an unfinished sweep compares all its optimizers. Where it
    tunes, what tunes comes first, and the rest is held back with each optimizer's first setting.
    Raises SpecError when there are more than ``limit``.
    """
    total = len(request.seeds) * sum(entry.variants for entry in request.optimizers)
    if request.tune is not None:
        total = len(_places(request))
    if total > limit:
        raise SpecError("/optimizers", f"This sweep has {total} runs; at most {limit} are allowed.")
    variants = [_variants(entry) for entry in request.optimizers]
    if request.tune is None:
        return [
            _trial(request.optimizers, i, chosen, seed)
            for seed in request.seeds
            for i, of in enumerate(variants)
            for chosen in of
        ]
    return [_tuned_trial(request, variants, place) for place in _places(request)]


_Choice = tuple[dict[str, Any], dict[str, str]]  # values by parameter, and where they stand


def _trial(optimizers: Sequence[SweepOptimizer], entry: int, chosen: _Choice, seed: int) -> Trial:
    values, where = chosen
    own = optimizers[entry]
    optimizer = Component(name=own.name, params={**own.params, **values})
    return Trial(optimizer, seed, f"/optimizers/{entry}", _label(own.name, values, seed), where)


def _tuned_trial(
    request: SweepRequest, variants: Sequence[Sequence[_Choice]], place: tuned.Place
) -> Trial:
    chosen = variants[place.entry][place.variant]
    trial = _trial(request.optimizers, place.entry, chosen, place.seed)
    if place.tuning:
        tags = {PHASE: TUNING}
        return Trial(**{**vars(trial), "label": f"tuning {trial.label}"[:250], "tags": tags})
    if place.held:
        label = f"{trial.optimizer.name} tuned seed {place.seed}"
        return Trial(**{**vars(trial), "label": label, "held": True})
    return trial


def _places(request: SweepRequest) -> list[tuned.Place]:
    counts = [entry.variants for entry in request.optimizers]
    return tuned.places(counts, request.tune.seeds if request.tune else (), request.seeds)


def _variants(entry: SweepOptimizer) -> list[_Choice]:
    """Each choice of the parameters, and where its values stand."""
    if entry.settings is not None:
        return [
            (dict(values), {name: f"/settings/{at}/{name}" for name in values})
            for at, values in enumerate(entry.settings)
        ]
    grid = entry.grid
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
