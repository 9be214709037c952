"""What is known of a task: the curves that are there, read from their folders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.harness.contract import Context
from bench.harness.statistics import Curve
from bench.judge import settings, steptimes
from bench.judge.grids import (
    ADAMW_DEFAULTS,
    ENTRANTS,
    REFERENCE,
    Entrant,
    Params,
)
from bench.judge.measures import (
    Estimate,
    crossing,
    estimate,
    seconds_of,
    targets,
)
from bench.judge.pace import Pace
from bench.judge.runs import Run
from bench.judge.stages import LONG
from bench.judge.tasks import Judged

Curves = Mapping[int, Curve]  # by seed


@dataclass(frozen=True)
class Reached:
    """When an entrant reached a target: a miss is infinity.

    Attributes:
        factor: The horizon it chose, as a part of the task's own.
    """

    samples: Estimate
    seconds: Estimate
    missed: int
    factor: float = 1.0


@dataclass(frozen=True)
class TaskResults:
    """All that was run of one task.

    Attributes:
        pinned: What tuning chose.
        curves: Each entrant's over the task's horizon.
        long: The same over three times that.
        chosen: For each entrant and target, horizon and curves of what it chose for it.
        pace: Measured in turns, of those that were.
    """

    judged: Judged
    pinned: Mapping[str, settings.Pinned]
    curves: Mapping[str, Curves]
    long: Mapping[str, Curves]
    chosen: Mapping[str, Mapping[str, tuple[float, Curves]]]
    pace: Mapping[str, Pace]

    @property
    def targets(self) -> dict[str, float]:
        """Return what tuned AdamW reaches, by percent of its horizon; empty if it did not run."""
        found = self.curves.get(REFERENCE)
        return targets(list(found.values())) if found else {}

    @property
    def clock(self) -> Mapping[str, Pace]:
        """Return ``pace`` if all have one, else nothing: two ways of timing do not compare."""
        return self.pace if set(self.curves) <= set(self.pace) else {}

    def reached(self, name: str, percent: str) -> Reached | None:
        """Return when an entrant reached a target over the task's own horizon."""
        return self._reached(name, percent, self.curves.get(name))

    def fastest(self, name: str, percent: str) -> Reached | None:
        """Return the least seconds to a target over the horizons that an entrant may choose."""
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
        pace = self.clock.get(name)
        hit = [p for p in at if p is not None]
        missed = len(at) - len(hit)
        never = [float("inf")] * missed
        return Reached(
            estimate([*(p["samples"] for p in hit), *never]),
            estimate([*(seconds_of(p, pace) for p in hit), *never]),
            missed,
            factor,
        )


def collect(context: Context, judged: Judged) -> TaskResults:
    """Read what was run of a task on the context's seeds."""
    pinned = settings.load(context.output).get(judged.name, {})
    curves, long = {}, {}
    chosen: dict[str, dict[str, tuple[float, Curves]]] = {}
    for each in (*ENTRANTS, ADAMW_DEFAULTS):
        found = pinned.get(each.name)
        setting: Params | None = {} if not each.grid else (found or {}).get("setting")
        if setting is None:
            continue
        curves[each.name] = _curves(context, judged, each, setting)
        long[each.name] = _curves(context, judged.longer(LONG), each, setting)
        for percent, choice in ((found or {}).get("horizons") or {}).items():
            factor = choice["factor"]
            of = _curves(context, judged.longer(factor), each, choice["setting"])
            chosen.setdefault(each.name, {})[percent] = (factor, of)
    return TaskResults(
        judged,
        pinned,
        {name: found for name, found in curves.items() if found},
        {name: found for name, found in long.items() if found},
        chosen,
        steptimes.load(context.output, judged.name),
    )


def _curves(context: Context, judged: Judged, each: Entrant, setting: Params) -> Curves:
    found = {seed: Run(judged, each, setting, seed).found(context) for seed in context.seeds}
    return {seed: curve for seed, curve in found.items() if curve is not None}


def paired(first: Curves, second: Curves, value: Callable[[Curve], float]) -> Estimate | None:
    """Return the mean of value(first) − value(second) over the seeds both ran."""
    seeds: Sequence[int] = sorted(set(first) & set(second))
    if not seeds:
        return None
    return estimate([value(first[s]) - value(second[s]) for s in seeds])
