"""A task's comparison as one job of the service, and the judge's runs from what it stored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.harness.contract import Context
from bench.harness.runs import read_result
from bench.harness.statistics import Curve
from bench.judge.contenders import Contender, Params
from bench.judge.export import COLUMNS
from bench.judge.import_runs import curve_points, write_run
from bench.judge.runs import Run
from bench.judge.stages import TUNING_SEEDS, Stage
from bench.judge.tasks import BenchmarkTask
from mlhf.core.errors import DataError
from mlhf.core.metrics import parse_number
from mlhf.optimizers.learned.families import UNTRAINED
from mlhf.optimizers.specs import OPTIMIZERS

Get = Callable[..., Any]  # path and parameters ↦ JSON, as ``Client.get``

_AXES = {"epoch": "epochs", "samples": "samples", "wall_seconds": "wall_seconds"}
_LOSSES = COLUMNS[7:]


def sweep(
    task: BenchmarkTask, contenders: Sequence[Contender], seeds: Sequence[int], tuning: int = 1
) -> dict[str, Any]:
    """Return the job that tunes the contenders on a task and trains the best of each.

    Args:
        seeds: Those that are judged.
        tuning: On how many seeds settings are tried.
    """
    spec = task.spec
    return {
        "kind": "sweep",
        "name": f"judge: {task.name}",
        "tags": {"judge": task.name},
        "model": spec.model.model_dump(mode="json"),
        "dataset": spec.dataset.model_dump(mode="json"),
        "budget": spec.budget.model_dump(mode="json", exclude_none=True),
        "batch_size": spec.batch_size,
        "evaluation": spec.evaluation.model_dump(mode="json", exclude_none=True),
        "optimizers": [_entry(each) for each in contenders],
        "tune": {"seeds": list(TUNING_SEEDS[:tuning])},
        "seeds": list(seeds),
        "resources": {"device": "cpu", "threads": 1},
    }


def _entry(each: Contender) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": each.optimizer, "params": dict(each.params)}
    return {**entry, "settings": [dict(s) for s in each.grid]} if each.grid else entry


def import_job(
    context: Context, get: Get, job: str, task: BenchmarkTask, contenders: Sequence[Contender]
) -> list[Run]:
    """Pin the settings that a job chose, and make a folder of each run; return the new ones.

    Args:
        get: Asks the service.
        job: The id of a job of ``sweep``.

    Raises:
        DataError: The job has not ended, or is of another task.
    """
    found = get(f"/v1/jobs/{job}")
    if found["tags"].get("judge") != task.name:
        raise DataError(f"{job} is no judging of {task.name}: its tag judge says otherwise.")
    if found["status"] not in ("succeeded", "failed"):
        raise DataError(f"{job} is {found['status']}: wait until it has ended.")
    runs = [get(f"/v1/runs/{identity}") for identity in found["run_ids"]]
    made = []
    for each in contenders:
        own = [(run, at) for run in runs if (at := _setting(each, run["config"])) is not None]
        _pin(context, get, task, each, own)
        for run, at in own:
            if run["seed"] in TUNING_SEEDS:
                continue
            setting: Params = each.grid[at] if each.grid else {}
            new = Run(task, each, setting, run["seed"])
            if read_result(new.folder(context)) is None:
                write_run(context, new, _points(get, run["id"]))
                made.append(new)
    return made


def _setting(each: Contender, config: Mapping[str, Any]) -> int | None:
    """Return which of a contender's settings a run has; None: it is another's."""
    optimizer = config["optimizer"]
    if optimizer["name"] != each.optimizer:
        return None
    given = dict(optimizer["params"])
    untrained = given.pop("meta_checkpoint", None) == UNTRAINED
    for at, setting in enumerate(each.grid or ({},)):
        parsed = OPTIMIZERS.parse(each.optimizer, {**each.params, **setting})
        own = parsed.model_dump(mode="json", exclude_none=True)
        if (own.pop("meta_checkpoint", None) == UNTRAINED) == untrained and own == given:
            return at
    return None


def _pin(
    context: Context,
    get: Get,
    task: BenchmarkTask,
    each: Contender,
    own: Sequence[tuple[Mapping[str, Any], int]],
) -> None:
    """Pin the setting, by the judge's statistics of the runs that tuned."""
    tried: list[list[Curve]] = [[] for _ in each.grid]
    for run, at in own:
        if each.grid and run["seed"] in TUNING_SEEDS:
            status = "succeeded" if run["status"] == "succeeded" else "diverged"
            totals = run["totals"] or {}
            points = curve_points(task, _points(get, run["id"]))
            tried[at].append(Curve(points, {"status": status, "totals": totals}))
    if tried and all(tried):
        Stage(replace(context, seeds=()), task, [each]).pin(each, tried)


def _points(get: Get, run: str) -> list[dict[str, float]]:
    """Return the evaluations of a run in the columns of a report's table of curves."""
    rows: list[dict[str, float]] = []
    for column, axis in _AXES.items():
        series = get(f"/v1/runs/{run}/curves", metric=list(_LOSSES), x=axis)["series"]
        for each in series:
            for at, (x, value) in enumerate(each["points"]):
                if at == len(rows):
                    rows.append(dict.fromkeys(_LOSSES, float("nan")))
                rows[at] |= {column: x, each["metric"]: parse_number(value)}
    return rows
