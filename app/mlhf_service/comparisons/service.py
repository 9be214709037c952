"""Put runs side by side."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
from sqlalchemy.orm import Session

from mlhf.core.metrics import higher_is_better, json_number
from mlhf_service.comparisons import warnings
from mlhf_service.comparisons.clocks import processor_share
from mlhf_service.comparisons.grouping import Group, group
from mlhf_service.comparisons.schemas import (
    Band,
    ComparedGroup,
    ComparedMetric,
    ComparedRun,
    Comparison,
    Measure,
    MeasureBands,
    Ratios,
    ToTarget,
)
from mlhf_service.comparisons.statistics import MOST_POINTS, band, group_curve, mean_of
from mlhf_service.comparisons.tuning import PHASE, TUNING
from mlhf_service.kit.problems import FieldError, Invalid, NotFound
from mlhf_service.runs import outcomes, reading, repository
from mlhf_service.runs.curves import Series
from mlhf_service.runs.metrics import Axis
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import ACTIVE
from mlhf_service.runs.values import parameters

MOST_RUNS = 100
MOST_RUNS_OF_A_JOB = 1024
# Of curves that are too long to be read whole: of all runs together, and of one at least.
_ALL_POINTS, _LEAST_POINTS = 20_000, 200
_MEASURES = ("final_loss", "best_loss", "final_accuracy", "best_accuracy")
_EFFORTS = ("steps", "samples", "wall_seconds", "cpu_seconds")
METRICS: tuple[ComparedMetric, ...] = get_args(ComparedMetric)


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
    return [*runs, *(run for run in _counting(of_job) if run.id not in run_ids)]


def _counting(runs: Sequence[Run]) -> list[Run]:
    """Leave out runs that only served to choose a setting, unless there are no others.

    They would be averaged with the runs that judge the setting which they chose.
    """
    found = [run for run in runs if (run.tags or {}).get(PHASE) != TUNING]
    return found or list(runs)


def compare(
    session: Session,
    runs: Sequence[Run],
    metric: ComparedMetric | None = None,
    target: float | None = None,
    x: Axis | None = None,
    most_points: int = MOST_POINTS,
) -> Compared:
    """Compare runs by one metric.

    Args:
        x: The axis by which they will be looked at, for the warnings about it.
        metric: Default: that of the target the runs were given in common, else train_loss.
        most_points: Of the curve of a group.
        target: Default: that common target, where its metric is the compared one.
    """
    common = _common_target(runs)
    if metric is None:
        metric = common[0] if common is not None and target is None else "train_loss"
    if target is None and common is not None and common[0] == metric:
        target = common[1]
    loss = metric.replace("accuracy", "loss")
    accuracy = metric if higher_is_better(metric) else "test_accuracy"
    curves = reading.read_many(
        session, [r.id for r in runs], METRICS, max(_LEAST_POINTS, _ALL_POINTS // len(runs))
    )

    groups = group(runs)
    label_of = {run.id: one.label for one in groups for run in one.runs}
    shown = [_run(run, label_of[run.id], curves[run.id], loss, accuracy) for run in runs]
    if target is not None:
        for run, one in zip(runs, shown, strict=True):
            _set_target(session, one, run, curves[run.id].get(metric), target)
    _set_ratios(shown)

    main = {run.id: curves[run.id].get(metric) or Series.joined(run.id, metric) for run in runs}
    by_id = {one.run_id: one for one in shown}
    comparison = Comparison(
        metric=metric,
        loss_metric=loss,
        accuracy_metric=accuracy,
        target=target,
        runs=shown,
        groups=[
            _group(one, [by_id[r.id] for r in one.runs], main, target is not None, most_points)
            for one in groups
        ],
        warnings=warnings.find(groups, curves, metric, x),
    )
    return Compared(comparison, groups, main)


def _wrong(parameter: str, detail: str) -> Invalid:
    return Invalid(detail, [FieldError(pointer=parameter, detail=detail)])


def _common_target(runs: Sequence[Run]) -> tuple[ComparedMetric, float] | None:
    targets = {(t["metric"], t["value"]) if (t := r.config.get("target")) else None for r in runs}
    return targets.pop() if len(targets) == 1 else None


def _run(run: Run, label: str, curves: dict[str, Series], loss: str, accuracy: str) -> ComparedRun:
    diverged = outcomes.diverged(run)
    measures: dict[str, Measure] = {
        name: _measure(one, diverged) for name in METRICS if (one := curves.get(name))
    }
    absent = Measure(final=None, best=None)
    of_loss, of_accuracy = measures.get(loss, absent), measures.get(accuracy, absent)
    return ComparedRun(
        run_id=run.id,
        job_id=run.job_id,
        name=run.name,
        status=run.status,
        group=label,
        model=run.model,
        dataset=run.dataset,
        dataset_name=run.dataset_name or run.dataset,
        optimizer=run.optimizer,
        seed=run.seed,
        batch_size=run.config.get("batch_size"),
        params=parameters(run.config),
        measures=measures,
        final_loss=of_loss.final,
        best_loss=of_loss.best,
        final_accuracy=of_accuracy.final,
        best_accuracy=of_accuracy.best,
        target_status=None,
        to_target=None,
        diverged_at=outcomes.diverged_at(run),
        processor_share=processor_share(run),
        ratio_to_best=Ratios(),
    )


def _measure(series: Series, diverged: bool) -> Measure:
    """Last and best value. What a run that diverged measured before is not its final value."""
    finite = series.value[np.isfinite(series.value)]
    choose = np.max if higher_is_better(series.metric) else np.min
    final = math.nan if diverged else float(series.value[-1])
    return Measure(final=json_number(final), best=float(choose(finite)) if len(finite) else None)


def _set_target(
    session: Session, shown: ComparedRun, run: Run, series: Series | None, target: float
) -> None:
    if series is not None and series.downsampled:  # the first that reached it may be left out
        shown.to_target = reading.first_reaching(session, run.id, series.metric, target)
    elif series is not None and (at := series.first_reaching(target)) is not None:
        shown.to_target = series.position(at)
    reached = shown.to_target is not None
    shown.target_status = outcomes.target_status(run, reached, series is not None)


def _set_ratios(runs: Sequence[ComparedRun]) -> None:
    for name in (*_MEASURES, *_EFFORTS):
        ratios = _ratios([_number_of(run, name) for run in runs], higher_is_better(name))
        for run, ratio in zip(runs, ratios, strict=True):
            setattr(run.ratio_to_best, name, ratio)
    for metric in METRICS:
        measures = [m for run in runs if (m := run.measures.get(metric))]
        higher = higher_is_better(metric)
        finals = _ratios([_finite(m.final) for m in measures], higher)
        bests = _ratios([m.best for m in measures], higher)
        for measure, final, best in zip(measures, finals, bests, strict=True):
            measure.final_ratio, measure.best_ratio = final, best


def _ratios(values: Sequence[float | None], higher: bool) -> list[float | None]:
    """Each value over the best; None where there is none, or the best is not positive."""
    known = [v for v in values if v is not None]
    best = (max(known) if higher else min(known)) if known else 0.0
    return [value / best if value is not None and best > 0 else None for value in values]


def _number_of(run: ComparedRun, name: str) -> float | None:
    """One of the numbers of a run, where it has a finite one."""
    if name not in _EFFORTS:
        return _finite(getattr(run, name))
    if run.to_target is None:
        return None
    value = getattr(run.to_target, "step" if name == "steps" else name)
    return None if value is None else float(value)


def _finite(value: float | str | None) -> float | None:
    return None if isinstance(value, str) else value


def _group(
    group: Group,
    runs: Sequence[ComparedRun],
    curves: dict[str, Series],
    has_target: bool,
    most_points: int,
) -> ComparedGroup:
    seeds = [[run for run in runs if run.seed == seed] for seed in group.seeds]

    def over(number: Callable[[ComparedRun], float | None]) -> Band:
        return _over_seeds(seeds, number, lambda run: run.status in ACTIVE)

    def effort(name: str) -> Band:
        return _over_seeds(
            seeds, lambda run: _number_of(run, name), lambda run: run.target_status == "unfinished"
        )

    def of_metric(metric: str) -> MeasureBands:
        absent = Measure(final=None, best=None)
        return MeasureBands(
            final=over(lambda run: _finite(run.measures.get(metric, absent).final)),
            best=over(lambda run: run.measures.get(metric, absent).best),
        )

    to_target = None
    if has_target:
        steps = effort("steps")
        to_target = ToTarget(
            reached=steps.n,
            missed=steps.missing,
            unfinished=steps.unfinished,
            **{name: effort(name) for name in _EFFORTS},
        )
    return ComparedGroup(
        label=group.label,
        run_ids=[run.run_id for run in runs],
        seeds=list(group.seeds),
        n=len(seeds),
        repeats=len(runs) - len(seeds),
        to_target=to_target,
        curve=group_curve([[curves[run.run_id] for run in of] for of in seeds], most_points),
        measures={m: of_metric(m) for m in METRICS if any(m in run.measures for run in runs)},
        **{name: over(partial(_number_of, name=name)) for name in _MEASURES},
    )


def _over_seeds(
    seeds: Sequence[Sequence[ComparedRun]],
    number: Callable[[ComparedRun], float | None],
    unfinished: Callable[[ComparedRun], bool],
) -> Band:
    """A number over seeds; that of a seed is the mean over its runs that are done with it."""
    values: list[float | None] = []
    waiting = 0
    for runs in seeds:
        found = [(run, number(run)) for run in runs]
        known = [value for _, value in found if value is not None]
        ended_without = any(value is None and not unfinished(run) for run, value in found)
        if ended_without:
            values.append(None)
        elif not known:
            waiting += 1
        else:
            values.append(mean_of(known))
    return band(values, waiting)
