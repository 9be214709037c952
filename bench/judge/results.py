"""The results of a task: the curves found in the folders of its runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.harness.contract import Context
from bench.harness.statistics import Curve
from bench.judge import settings, time_steps
from bench.judge.contenders import (
    ADAMW_DEFAULTS,
    CONTENDERS,
    REFERENCE,
    Contender,
    Params,
)
from bench.judge.measures import (
    Estimate,
    crossing,
    estimate,
    seconds_of,
    targets,
)
from bench.judge.runs import Run
from bench.judge.stages import LONG
from bench.judge.step_timing import StepTiming
from bench.judge.tasks import BenchmarkTask

Curves = Mapping[int, Curve]  # by seed


@dataclass(frozen=True)
class Reached:
    """When a contender reached a target; a miss is infinite.

    Attributes:
        factor: The horizon it chose, as a fraction of the task's own.
    """

    samples: Estimate
    seconds: Estimate
    missed: int
    factor: float = 1.0


@dataclass(frozen=True)
class TaskResults:
    """Everything that was run of one task, by contender.

    Attributes:
        pinned: The settings that tuning chose.
        curves: Over the task's horizon.
        long: Over three times that.
        chosen: For each target the horizon that was chosen for it, and the curves over it.
        timing: Step times, of the contenders that were measured in turns.
    """

    task: BenchmarkTask
    pinned: Mapping[str, settings.Pinned]
    curves: Mapping[str, Curves]
    long: Mapping[str, Curves]
    chosen: Mapping[str, Mapping[str, tuple[float, Curves]]]
    timing: Mapping[str, StepTiming]

    @property
    def targets(self) -> dict[str, float]:
        """Training losses of tuned AdamW by percent of its horizon; empty if it did not run."""
        found = self.curves.get(REFERENCE)
        return targets(list(found.values())) if found else {}

    @property
    def shared_timing(self) -> Mapping[str, StepTiming]:
        """``timing`` if all contenders have one, else empty: two ways of timing do not compare."""
        return self.timing if set(self.curves) <= set(self.timing) else {}

    def reached(self, name: str, percent: str) -> Reached | None:
        """Return when a contender reached a target over the task's own horizon."""
        return self._reached(name, percent, self.curves.get(name))

    def fastest(self, name: str, percent: str) -> Reached | None:
        """Return the fewest seconds to a target over the horizons that a contender may choose."""
        found = [self.reached(name, percent)]
        choice = self.chosen.get(name, {}).get(percent)
        if choice is not None:
            found.append(self._reached(name, percent, choice[1], choice[0]))
        found.append(self._reached(name, percent, self.long.get(name), LONG))
        return min((r for r in found if r), key=lambda r: r.seconds.mean, default=None)

    def _reached(
        self, name: str, percent: str, curves: Curves | None, factor: float = 1.0
    ) -> Reached | None:
        target = self.targets.get(percent)
        if not curves or target is None:
            return None
        at = [crossing(c, target) for c in curves.values()]
        timing = self.shared_timing.get(name)
        hit = [p for p in at if p is not None]
        missed = len(at) - len(hit)
        never = [float("inf")] * missed
        return Reached(
            estimate([*(p["samples"] for p in hit), *never]),
            estimate([*(seconds_of(p, timing) for p in hit), *never]),
            missed,
            factor,
        )


def collect(context: Context, task: BenchmarkTask) -> TaskResults:
    """Read the results of a task on the context's seeds."""
    pinned = settings.load(context.output).get(task.name, {})
    curves, long = {}, {}
    chosen: dict[str, dict[str, tuple[float, Curves]]] = {}
    for each in (*CONTENDERS, ADAMW_DEFAULTS):
        found = pinned.get(each.name)
        setting: Params | None = {} if not each.grid else (found or {}).get("setting")
        if setting is None:
            continue
        curves[each.name] = _curves(context, task, each, setting)
        long[each.name] = _curves(context, task.longer(LONG), each, setting)
        for percent, choice in ((found or {}).get("horizons") or {}).items():
            factor = choice["factor"]
            of = _curves(context, task.longer(factor), each, choice["setting"])
            chosen.setdefault(each.name, {})[percent] = (factor, of)
    return TaskResults(
        task,
        pinned,
        {name: found for name, found in curves.items() if found},
        {name: found for name, found in long.items() if found},
        chosen,
        time_steps.load(context.output, task.name),
    )


def _curves(context: Context, task: BenchmarkTask, each: Contender, setting: Params) -> Curves:
    found = {seed: Run(task, each, setting, seed).found(context) for seed in context.seeds}
    return {seed: curve for seed, curve in found.items() if curve is not None}


def paired(first: Curves, second: Curves, value: Callable[[Curve], float]) -> Estimate | None:
    """Return the mean of value(first) − value(second) over the seeds both ran."""
    seeds: Sequence[int] = sorted(set(first) & set(second))
    if not seeds:
        return None
    return estimate([value(first[s]) - value(second[s]) for s in seeds])
