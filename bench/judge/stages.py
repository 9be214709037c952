"""The stages of the protocol. Each does what is not done yet; False where time was up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.harness.contract import Context
from bench.harness.statistics import Curve
from bench.judge import settings, steptimes
from bench.judge.grids import (
    ADAMW_DEFAULTS,
    CANDIDATE,
    CONTROL,
    REFERENCE,
    Entrant,
    Params,
    entrant,
)
from bench.judge.measures import (
    crossing,
    final,
    integral,
    score,
    seconds_of,
    targets,
)
from bench.judge.pace import Pace
from bench.judge.runs import Run
from bench.judge.tasks import Judged
from mlhf.ablation.statistics import mean

TUNING_SEEDS = (1000, 1001, 1002)  # never among those that are judged
HORIZONS = (0.5, 1.5, 2.0)  # what a scheduled peer may choose beside the task's own
LONG = 3.0  # times the horizon, for stability
_KEPT = 2  # settings that are tried over other horizons
# Who runs three times the horizon unless --only says more.
_ENDURING = (CANDIDATE, CONTROL, REFERENCE, "sgd + momentum", "hf growing")


@dataclass(frozen=True)
class Stage:
    """A stage for one task, with who takes part and how many seeds.

    Attributes:
        chosen: Whether ``entrants`` were named by the user.
    """

    context: Context
    judged: Judged
    entrants: Sequence[Entrant]
    chosen: bool = False

    def tune(self, seeds: int) -> bool:
        """Try every setting on the tuning seeds, and pin the best of each entrant."""
        for each in self.entrants:
            if not each.grid or self._pinned(each) is not None:
                continue
            runs = [self._tuning(each, params, TUNING_SEEDS[:seeds]) for params in each.grid]
            curves = [_carried(self.context, of) for of in runs]
            if any(found is None for found in curves):
                return False
            self._pin(each, [found for found in curves if found is not None])
        return True

    def judge(self) -> bool:
        """Train each entrant with what is pinned on every judged seed, a seed at a time."""
        runs = [
            Run(self.judged, each, setting, seed)
            for seed in self.context.seeds
            for each in self.entrants
            if (setting := self._setting(each)) is not None
        ]
        return _carried(self.context, runs) is not None

    def horizons(self, seeds: int) -> bool:
        """Let scheduled peers choose their horizon, and run what they chose on judged seeds."""
        scheduled = [e for e in self.entrants if e.scheduled]
        goals = self._tuning_targets(seeds) if scheduled else {}
        if goals is None:
            return False
        if scheduled and not goals:
            self.context.say(f"{self.judged.name}: adamw is not tuned yet, so there is no target")
            scheduled = []
        for each in scheduled:
            if not self._choose_horizon(each, goals, seeds):
                return False
        runs = [
            Run(self.judged.longer(choice["factor"]), each, choice["setting"], seed)
            for seed in self.context.seeds
            for each in self.entrants
            for choice in ((self._pinned(each) or {}).get("horizons") or {}).values()
        ]
        return _carried(self.context, runs) is not None

    def endure(self) -> bool:
        """Run three times the task's horizon, with the settings of the task's own."""
        enduring = [e for e in self.entrants if self.chosen or e.name in _ENDURING]
        runs = [
            Run(self.judged.longer(LONG), each, setting, seed)
            for seed in self.context.seeds
            for each in enduring
            if (setting := self._setting(each)) is not None
        ]
        return _carried(self.context, runs) is not None

    def transfer(self) -> bool:
        """Train with the meta-checkpoint, without it, and AdamW at its defaults."""
        runs = [
            Run(self.judged, each, {}, seed)
            for seed in self.context.seeds
            for each in (entrant(CANDIDATE), entrant(CONTROL), ADAMW_DEFAULTS)
        ]
        return _carried(self.context, runs) is not None

    def time(self) -> bool:
        """Measure everybody's step in turns, so that their times compare."""
        runs = [
            Run(self.judged, each, setting, self.context.seeds[0])
            for each in self.entrants
            if (setting := self._setting(each)) is not None
        ]
        return steptimes.measure(self.context, self.judged.name, runs)

    def _tuning(self, each: Entrant, setting: Params, seeds: Sequence[int]) -> list[Run]:
        return [Run(self.judged, each, setting, seed, tuning=True) for seed in seeds]

    def _pinned(self, each: Entrant) -> settings.Pinned | None:
        return settings.pinned(self.context.output, self.judged.name, each.name)

    def _setting(self, each: Entrant) -> Params | None:
        """Return what an entrant is judged with, None where it is not tuned yet."""
        if not each.grid:
            return {}
        found = self._pinned(each)
        if found is None:
            self.context.say(f"{self.judged.name}: {each.name} is not tuned yet")
            return None
        setting: Params = found["setting"]
        return setting

    def _pin(self, each: Entrant, curves: Sequence[Sequence[Curve]]) -> None:
        scores = [mean([score(c) for c in of]) for of in curves]
        order = sorted(range(len(scores)), key=scores.__getitem__)
        best = curves[order[0]]
        settings.pin(
            self.context.output,
            self.judged.name,
            each.name,
            {
                "setting": each.grid[order[0]],
                "next": [each.grid[i] for i in order[1:_KEPT] if scores[i] < math.inf],
                "score": _number(scores[order[0]]),
                "final": _number(mean([final(c) for c in best])),
                "integral": _number(mean([integral(c) for c in best])),
                "settings": len(each.grid),
                "diverged": sum(s == math.inf for s in scores),
                "edge": at_edge(each.grid, each.grid[order[0]]),
                "seeds": list(TUNING_SEEDS[: len(best)]),
            },
        )

    def _tuning_targets(self, seeds: int) -> dict[str, float] | None:
        """Return what tuned AdamW reaches on tuning seeds; empty if untuned, None if time was up.

        Settings may have come without their runs.
        """
        reference = entrant(REFERENCE)
        found = self._pinned(reference)
        if found is None:
            return {}
        runs = self._tuning(reference, found["setting"], found["seeds"][:seeds])
        curves = _carried(self.context, runs)
        return None if curves is None else targets(curves)

    def _choose_horizon(self, each: Entrant, goals: dict[str, float], seeds: int) -> bool:
        """Pin, for each target, horizon and setting with the fewest seconds to it."""
        found = self._pinned(each)
        if found is None or "horizons" in found:
            return True
        tuned = found["seeds"][:seeds]
        tried: list[tuple[float, Params, list[Curve]]] = []
        for setting in each.grid:
            runs = self._tuning(each, setting, tuned)
            tried.append((1.0, setting, [c for r in runs if (c := r.found(self.context))]))
        for setting in (found["setting"], *found["next"]):
            for factor in HORIZONS:
                longer = replace(self, judged=self.judged.longer(factor))
                runs = longer._tuning(each, setting, tuned)
                curves = _carried(self.context, [replace(r, goal=goals["100"]) for r in runs])
                if curves is None:
                    return False
                tried.append((factor, setting, curves))
        pace = steptimes.load(self.context.output, self.judged.name).get(each.name)
        chosen: dict[str, Any] = {}
        for percent, goal in goals.items():
            spent = [_seconds(curves, goal, pace) for _, _, curves in tried]
            best = min(range(len(spent)), key=spent.__getitem__)
            if spent[best] < math.inf:
                factor, setting, _ = tried[best]
                chosen[percent] = {"factor": factor, "setting": setting, "seconds": spent[best]}
        settings.pin(self.context.output, self.judged.name, each.name, {"horizons": chosen})
        return True


def at_edge(grid: Sequence[Params], chosen: Params) -> list[str]:
    """Return the parameters whose chosen value is the least or greatest of those tried."""
    found = []
    for name, value in chosen.items():
        tried = {p[name] for p in grid if isinstance(p.get(name), float)}
        if isinstance(value, float) and len(tried) > 1 and value in (min(tried), max(tried)):
            found.append(name)
    return found


def _carried(context: Context, runs: Sequence[Run]) -> list[Curve] | None:
    """Return the runs' curves, made where they are not; None if time was up."""
    curves = []
    for run in runs:
        curve = run.carry_out(context)
        if curve is None:
            return None
        curves.append(curve)
    return curves


def _seconds(curves: Sequence[Curve], goal: float, pace: Pace | None) -> float:
    """Return the mean seconds to a target, infinite where a seed missed it."""
    at = [crossing(c, goal) for c in curves]
    if not at or any(p is None for p in at):
        return math.inf
    return mean([seconds_of(p, pace) for p in at if p is not None])


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
