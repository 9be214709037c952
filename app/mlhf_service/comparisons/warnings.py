"""What may make runs unfit to be compared."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlhf_service.comparisons import clocks
from mlhf_service.comparisons.grouping import Group
from mlhf_service.comparisons.schemas import Warning
from mlhf_service.runs import outcomes
from mlhf_service.runs.curves import Series
from mlhf_service.runs.metrics import Axis
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import TERMINAL

_LONGEST = 80  # of a value in a message


def find(
    groups: Sequence[Group],
    curves: dict[str, dict[str, Series]],
    metric: str,
    x: Axis | None = None,
) -> list[Warning]:
    """All reasons for caution, the most serious first.

    Args:
        x: The axis by which the runs will be looked at, if one was chosen.
    """
    runs = [run for group in groups for run in group.runs]
    return [
        *_state(runs, curves, metric),
        *(w for rule in _DIFFERENCES if (w := _difference(runs, *rule))),
        *_seconds(runs, curves, x),
        *_seeds(groups),
    ]


def _state(runs: Sequence[Run], curves: dict[str, dict[str, Series]], metric: str) -> list[Warning]:
    found = []
    unfinished = [run.id for run in runs if run.status not in TERMINAL]
    if unfinished:
        text = (
            f"{len(unfinished)} of {len(runs)} runs have not finished: their numbers will change."
        )
        found.append(Warning(code="unfinished", message=text, run_ids=unfinished))
    diverged = [run.id for run in runs if outcomes.diverged(run)]
    stopped = [r.id for r in runs if r.status in ("failed", "cancelled") and r.id not in diverged]
    if stopped:
        text = f"{len(stopped)} of {len(runs)} runs ended before their budget was spent."
        found.append(Warning(code="unfinished", message=text, run_ids=stopped))
    if diverged:
        text = (
            f"{len(diverged)} of {len(runs)} runs diverged: their final values are NaN, and a "
            "group with one has no mean."
        )
        found.append(Warning(code="diverged", message=text, run_ids=diverged))
    absent = [run.id for run in runs if metric not in curves[run.id]]
    if absent:
        text = f"{metric} was not measured in {len(absent)} of {len(runs)} runs."
        found.append(Warning(code="not_measured", message=text, run_ids=absent))
    return found


def _environment(*names: str) -> Callable[[Run], Any]:
    return lambda run: run.environment and [run.environment.get(name) for name in names]


def _config(name: str) -> Callable[[Run], Any]:
    return lambda run: run.config.get(name)


def _loss(run: Run) -> Any:
    return run.config.get("loss") or "that of the task"


def _frequency(run: Run) -> Any:
    return run.config.get("evaluation", {}).get("every_epochs")


def _measured(run: Run) -> Any:
    """How many samples of each split were measured; runs of older versions did not say."""
    told = (run.environment or {}).get("evaluation")
    if told is None and run.environment and run.data_info:
        most = run.config.get("evaluation", {}).get("max_samples")
        sizes = {split: run.data_info.get(f"{split}_samples") or 0 for split in ("train", "test")}
        told = {
            split: {"samples": min(size, most or size), "of": size} for split, size in sizes.items()
        }
    if told is None:
        return None
    return " and ".join(
        f"{one['samples']:,} of {one['of']:,} {split} samples" for split, one in told.items()
    )


# What should be the same in all runs: the warning's code, its words, and the value to compare.
_DIFFERENCES: tuple[tuple[Any, str, Callable[[Run], Any]], ...] = (
    ("data", "Data sets differ (content or parameters)", _config("dataset")),
    ("data", "The content of the data set differs", _environment("data_digest")),
    ("model", "Models differ", _config("model")),
    ("loss", "Losses differ: their values are not of one scale", _loss),
    ("batch_size", "Batch sizes differ", _config("batch_size")),
    ("hardware", "Hardware differs: compare seconds with care", _environment("device_name")),
    ("threads", "Numbers of threads differ: compare seconds with care", _environment("threads")),
    ("versions", "Versions of torch or the engine differ", _environment("torch", "engine")),
    ("budget", "Budgets differ: final values are not of equal effort", _config("budget")),
    ("evaluation", "Evaluations differ in their number (every_epochs)", _frequency),
    ("evaluation", "Loss and accuracy were measured on different samples", _measured),
)


def _difference(
    runs: Sequence[Run], code: Any, words: str, value_of: Callable[[Run], Any]
) -> Warning | None:
    """A warning that names the runs whose value is not that of the first."""
    values = [(run, value_of(run)) for run in runs]
    known = [(run, value) for run, value in values if value not in (None, [None])]
    if not known:
        return None
    first = known[0][1]
    other = [run.id for run, value in known if value != first]
    if not other:
        return None
    different = list(dict.fromkeys(_said(value) for _, value in known))
    text = f"{words}: {'; '.join(different[:4])}{'; …' if len(different) > 4 else ''}."
    return Warning(code=code, message=text, run_ids=other)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_said(part) for part in value)
    if isinstance(value, dict):
        name, params = value.get("name"), value.get("params", value)
        text = json.dumps(params, separators=(",", ":")) if params else ""
        value = " ".join(part for part in (name, text) if part) or "default"
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _seconds(
    runs: Sequence[Run], curves: dict[str, dict[str, Series]], x: Axis | None
) -> list[Warning]:
    found = []
    shared = [run for run in runs if clocks.had_to_share(run)]
    if shared:
        least = min(clocks.processor_share(run) or 0.0 for run in shared)
        text = (
            f"The machine was shared: {len(shared)} of {len(runs)} runs had a processor for less "
            f"than {clocks.LEAST_SHARE:.0%} of their seconds of training (the least: "
            f"{least:.0%}), and waited for one, or for a disk, in the rest. Compare CPU seconds "
            "(x=cpu_seconds) rather than seconds."
        )
        found.append(
            Warning(code="shared_machine", message=text, run_ids=[run.id for run in shared])
        )
    measured = [run for run in runs if curves[run.id]]
    uncounted = [
        run.id
        for run in measured
        if any(bool(np.isnan(one.cpu_seconds).any()) for one in curves[run.id].values())
    ]
    if uncounted and (x == "cpu_seconds" or len(uncounted) < len(measured)):
        text = (
            f"{len(uncounted)} of {len(runs)} runs have no CPU seconds: they were trained before "
            "these were counted."
        )
        found.append(Warning(code="cpu_seconds", message=text, run_ids=uncounted))
    gpu = [run.id for run in runs if clocks.on_gpu(run)]
    if gpu and x == "cpu_seconds":
        text = (
            f"{len(gpu)} of {len(runs)} runs were trained on a GPU: CPU seconds do not count what "
            "it computed."
        )
        found.append(Warning(code="cpu_seconds", message=text, run_ids=gpu))
    return found


def _seeds(groups: Sequence[Group]) -> list[Warning]:
    found = []
    sets = {tuple(sorted(group.seeds)) for group in groups}
    if len(sets) > 1:
        first = sorted(groups[0].seeds)
        other = [group for group in groups if sorted(group.seeds) != first]
        ids = [run.id for group in other for run in group.runs]
        text = "Groups were run with different seeds: their means are not over the same draws."
        found.append(Warning(code="seeds", message=text, run_ids=ids))
    repeats = [
        run.id
        for group in groups
        for i, run in enumerate(group.runs)
        if run.seed in [before.seed for before in group.runs[:i]]
    ]
    if repeats:
        text = (
            f"{len(repeats)} of {sum(len(group.runs) for group in groups)} runs repeat the "
            "configuration and the seed of another: they are no further seeds. Runs of one seed "
            "are averaged first, and count once."
        )
        found.append(Warning(code="repeats", message=text, run_ids=repeats))
    single = [group.runs[0].id for group in groups if len(group.seeds) == 1]
    if single and len(groups) > 1:
        text = (
            f"{len(single)} of {len(groups)} configurations were run with a single seed: "
            "a difference may be chance."
        )
        found.append(Warning(code="single_seed", message=text, run_ids=single))
    return found
