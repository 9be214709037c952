"""Put runs side by side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from mlhf.core.metrics import higher_is_better, json_number
from mlhf_service.comparisons import warnings
from mlhf_service.comparisons.grouping import Group, group
from mlhf_service.comparisons.schemas import (
    Band,
    ComparedGroup,
    ComparedMetric,
    ComparedRun,
    Comparison,
    Ratios,
    ToTarget,
)
from mlhf_service.comparisons.statistics import band, group_curve
from mlhf_service.kit.problems import FieldError, Invalid, NotFound
from mlhf_service.runs import repository
from mlhf_service.runs.curves import Series
from mlhf_service.runs.models import Run
from mlhf_service.runs.schemas import Reached

MOST_RUNS = 64
MOST_RUNS_OF_A_JOB = 1024
_MEASURES = ("final_loss", "best_loss", "final_accuracy", "best_accuracy")
_EFFORTS = ("steps", "samples", "wall_seconds")


@dataclass(frozen=True)
class Compared:
    """A comparison, and the curves it was made from, for its picture."""

    comparison: Comparison
    groups: list[Group]
    curves: dict[str, Series]  # of the compared metric, by run id


def runs_to_compare(session: Session, run_ids: Sequence[str], job_id: str | None) -> list[Run]:
    """The runs named, then those of the job that are not among them."""
    run_ids = list(dict.fromkeys(run_ids))
    if job_id is None and len(run_ids) < 2:
        raise _wrong("run", "Name at least two runs, or a job by job=.")
    if len(run_ids) > MOST_RUNS:
        raise _wrong("run", f"At most {MOST_RUNS} runs can be compared.")
    runs = repository.get_many(session, run_ids)
    missing = set(run_ids) - {run.id for run in runs}
    if missing:
        raise NotFound.at("run", f"There is no run {min(missing)}.")
    if job_id is None:
        return runs
    of_job = repository.of_job(session, job_id)
    if not of_job:
        raise NotFound.at("job", f"There is no job {job_id}.")
    if len(of_job) > MOST_RUNS_OF_A_JOB:
        raise _wrong("job", f"The job has {len(of_job)} runs: name some of them by run=.")
    return [*runs, *(run for run in of_job if run.id not in run_ids)]


def compare(
    session: Session,
    runs: Sequence[Run],
    metric: ComparedMetric | None = None,
    target: float | None = None,
) -> Compared:
    """Compare runs by one metric.

    Args:
        metric: Default: that of the target the runs were given in common, else train_loss.
        target: Default: that common target, where its metric is the compared one.
    """
    common = _common_target(runs)
    if metric is None:
        metric = common[0] if common is not None and target is None else "train_loss"
    if target is None and common is not None and common[0] == metric:
        target = common[1]
    loss = metric.replace("accuracy", "loss")
    accuracy = metric if higher_is_better(metric) else "test_accuracy"
    curves = repository.curves_of(session, [r.id for r in runs], [loss, accuracy, metric])

    groups = group(runs)
    label_of = {run.id: one.label for one in groups for run in one.runs}
    shown = [_run(run, label_of[run.id], curves[run.id], loss, accuracy) for run in runs]
    if target is not None:
        for one in shown:
            one.to_target = _reached(curves[one.run_id].get(metric), target)
    _set_ratios(shown)

    main = {run.id: curves[run.id].get(metric) or Series.of(run.id, metric, []) for run in runs}
    by_id = {one.run_id: one for one in shown}
    comparison = Comparison(
        metric=metric,
        target=target,
        runs=shown,
        groups=[
            _group(one, [by_id[r.id] for r in one.runs], main, target is not None) for one in groups
        ],
        warnings=warnings.find(groups, curves, metric),
    )
    return Compared(comparison, groups, main)


def _wrong(parameter: str, detail: str) -> Invalid:
    return Invalid(detail, [FieldError(pointer=parameter, detail=detail)])


def _common_target(runs: Sequence[Run]) -> tuple[ComparedMetric, float] | None:
    targets = {(t["metric"], t["value"]) if (t := r.config.get("target")) else None for r in runs}
    return targets.pop() if len(targets) == 1 else None


def _run(run: Run, label: str, curves: dict[str, Series], loss: str, accuracy: str) -> ComparedRun:
    return ComparedRun(
        run_id=run.id,
        job_id=run.job_id,
        name=run.name,
        status=run.status,
        group=label,
        model=run.model,
        dataset=run.dataset,
        optimizer=run.optimizer,
        seed=run.seed,
        batch_size=run.config.get("batch_size"),
        final_loss=_final(curves.get(loss)),
        best_loss=_best(curves.get(loss)),
        final_accuracy=_final(curves.get(accuracy)),
        best_accuracy=_best(curves.get(accuracy)),
        to_target=None,
        ratio_to_best=Ratios(),
    )


def _final(series: Series | None) -> Any:
    return json_number(float(series.value[-1])) if series is not None else None


def _best(series: Series | None) -> float | None:
    if series is None:
        return None
    finite = [v for v in series.value.tolist() if math.isfinite(v)]
    choose: Callable[..., float | None] = max if higher_is_better(series.metric) else min
    return choose(finite, default=None)


def _reached(series: Series | None, target: float) -> Reached | None:
    at = series.first_reaching(target) if series is not None else None
    if series is None or at is None:
        return None
    return Reached(
        step=int(series.step[at]),
        samples=int(series.samples[at]),
        epoch=float(series.epoch[at]),
        wall_seconds=float(series.wall_seconds[at]),
    )


def _measure(run: ComparedRun, name: str) -> float | None:
    """One of the numbers of a run, where it has a finite one."""
    if name in _EFFORTS:
        if run.to_target is None:
            return None
        return float(getattr(run.to_target, "step" if name == "steps" else name))
    value = getattr(run, name)
    return value if isinstance(value, float) else None


def _set_ratios(runs: Sequence[ComparedRun]) -> None:
    for name in (*_MEASURES, *_EFFORTS):
        values = [v for run in runs if (v := _measure(run, name)) is not None]
        if not values:
            continue
        best = max(values) if higher_is_better(name) else min(values)
        for run in runs:
            value = _measure(run, name)
            if value is not None and best > 0:
                setattr(run.ratio_to_best, name, value / best)


def _group(
    group: Group, runs: Sequence[ComparedRun], curves: dict[str, Series], has_target: bool
) -> ComparedGroup:
    def over(name: str) -> Band:
        return band([_measure(run, name) for run in runs])

    to_target = None
    if has_target:
        to_target = ToTarget(
            missed=sum(run.to_target is None for run in runs),
            **{name: over(name) for name in _EFFORTS},
        )
    return ComparedGroup(
        label=group.label,
        run_ids=[run.run_id for run in runs],
        seeds=[run.seed for run in runs],
        n=len(runs),
        to_target=to_target,
        curve=group_curve([curves[run.run_id] for run in runs]),
        **{name: over(name) for name in _MEASURES},
    )
