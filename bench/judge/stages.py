"""The stages of the protocol. Each does what is left to do, and is False where time was up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.harness.contract import Context
from bench.harness.statistics import Curve
from bench.judge import settings, time_steps
from bench.judge.contenders import (
    ADAMW_DEFAULTS,
    CANDIDATE,
    CONTROL,
    REFERENCE,
    Contender,
    Params,
    contender,
)
from bench.judge.measures import (
    crossing,
    final,
    integral,
    score,
    seconds_of,
    targets,
)
from bench.judge.runs import Run
from bench.judge.step_timing import StepTiming
from bench.judge.tasks import BenchmarkTask
from mlhf.ablation.statistics import mean

TUNING_SEEDS = (1000, 1001, 1002)  # never among those that are judged
HORIZONS = (0.5, 1.5, 2.0)  # a scheduled peer chooses from these and the task's own
LONG = 3.0  # times the horizon, for stability
_FINALISTS = 2  # settings that are tried over other horizons
# The contenders of the stage stability unless --only names others.
_LONG_RUNS = (CANDIDATE, CONTROL, REFERENCE, "sgd + momentum", "hf growing")


@dataclass(frozen=True)
class Stage:
    """The stages for one task, some contenders and the context's seeds.

    Attributes:
        named: Whether the user named the contenders.
    """

    context: Context
    task: BenchmarkTask
    contenders: Sequence[Contender]
    named: bool = False

    def tune(self, seeds: int) -> bool:
        """Try every setting on the tuning seeds, and pin the best of each contender."""
        for each in self.contenders:
            if not each.grid or self._pinned(each) is not None:
                continue
            runs = [self._tuning(each, params, TUNING_SEEDS[:seeds]) for params in each.grid]
            curves = [_run_all(self.context, of) for of in runs]
            if any(found is None for found in curves):
                return False
            self.pin(each, [found for found in curves if found is not None])
        return True

    def judge(self) -> bool:
        """Train each contender with its pinned setting on every judged seed, a seed at a time."""
        runs = [
            Run(self.task, each, setting, seed)
            for seed in self.context.seeds
            for each in self.contenders
            if (setting := self._setting(each)) is not None
        ]
        return _run_all(self.context, runs) is not None

    def horizons(self, seeds: int) -> bool:
        """Let scheduled peers choose their horizon, then run it on the judged seeds."""
        scheduled = [e for e in self.contenders if e.scheduled]
        goals = self._tuning_targets(seeds) if scheduled else {}
        if goals is None:
            return False
        if scheduled and not goals:
            self.context.log(f"{self.task.name}: adamw is not tuned yet, so there is no target")
            scheduled = []
        for each in scheduled:
            if not self._choose_horizon(each, goals, seeds):
                return False
        runs = [
            Run(self.task.longer(choice["factor"]), each, choice["setting"], seed)
            for seed in self.context.seeds
            for each in self.contenders
            for choice in ((self._pinned(each) or {}).get("horizons") or {}).values()
        ]
        return _run_all(self.context, runs) is not None

    def stability(self) -> bool:
        """Run three times the task's horizon, with the setting of the task's own horizon."""
        chosen = [e for e in self.contenders if self.named or e.name in _LONG_RUNS]
        runs = [
            Run(self.task.longer(LONG), each, setting, seed)
            for seed in self.context.seeds
            for each in chosen
            if (setting := self._setting(each)) is not None
        ]
        return _run_all(self.context, runs) is not None

    def transfer(self) -> bool:
        """Train with the meta-checkpoint, without it, and AdamW at its defaults."""
        runs = [
            Run(self.task, each, {}, seed)
            for seed in self.context.seeds
            for each in (contender(CANDIDATE), contender(CONTROL), ADAMW_DEFAULTS)
        ]
        return _run_all(self.context, runs) is not None

    def time(self) -> bool:
        """Measure the steps of all contenders in turns, so that their times compare."""
        runs = [
            Run(self.task, each, setting, self.context.seeds[0])
            for each in self.contenders
            if (setting := self._setting(each)) is not None
        ]
        return time_steps.measure(self.context, self.task.name, runs)

    def _tuning(self, each: Contender, setting: Params, seeds: Sequence[int]) -> list[Run]:
        return [Run(self.task, each, setting, seed, tuning=True) for seed in seeds]

    def _pinned(self, each: Contender) -> settings.Pinned | None:
        return settings.pinned(self.context.output, self.task.name, each.name)

    def _setting(self, each: Contender) -> Params | None:
        """Return the setting a contender is judged with, None where it is not tuned yet."""
        if not each.grid:
            return {}
        found = self._pinned(each)
        if found is None:
            self.context.log(f"{self.task.name}: {each.name} is not tuned yet")
            return None
        setting: Params = found["setting"]
        return setting

    def pin(self, each: Contender, curves: Sequence[Sequence[Curve]]) -> None:
        """Pin a contender's best setting, by the curves of each on the tuning seeds."""
        scores = [mean([score(c) for c in of]) for of in curves]
        order = sorted(range(len(scores)), key=scores.__getitem__)
        best = curves[order[0]]
        settings.pin(
            self.context.output,
            self.task.name,
            each.name,
            {
                "setting": each.grid[order[0]],
                "next": [each.grid[i] for i in order[1:_FINALISTS] if scores[i] < math.inf],
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
        """Return the targets on the tuning seeds; empty if AdamW is untuned, None if time was up.

        Its runs may be missing here: the settings may be a copy.
        """
        reference = contender(REFERENCE)
        found = self._pinned(reference)
        if found is None:
            return {}
        runs = self._tuning(reference, found["setting"], found["seeds"][:seeds])
        curves = _run_all(self.context, runs)
        return None if curves is None else targets(curves)

    def _choose_horizon(self, each: Contender, goals: dict[str, float], seeds: int) -> bool:
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
                longer = replace(self, task=self.task.longer(factor))
                runs = longer._tuning(each, setting, tuned)
                curves = _run_all(self.context, [replace(r, goal=goals["100"]) for r in runs])
                if curves is None:
                    return False
                tried.append((factor, setting, curves))
        timing = time_steps.load(self.context.output, self.task.name).get(each.name)
        chosen: dict[str, Any] = {}
        for percent, goal in goals.items():
            spent = [_seconds(curves, goal, timing) for _, _, curves in tried]
            best = min(range(len(spent)), key=spent.__getitem__)
            if spent[best] < math.inf:
                factor, setting, _ = tried[best]
                chosen[percent] = {"factor": factor, "setting": setting, "seconds": spent[best]}
        settings.pin(self.context.output, self.task.name, each.name, {"horizons": chosen})
        return True


def at_edge(grid: Sequence[Params], chosen: Params) -> list[str]:
    """Return the parameters whose chosen value is the lowest or highest of those tried."""
    found = []
    for name, value in chosen.items():
        tried = {p[name] for p in grid if isinstance(p.get(name), float)}
        if isinstance(value, float) and len(tried) > 1 and value in (min(tried), max(tried)):
            found.append(name)
    return found


def _run_all(context: Context, runs: Sequence[Run]) -> list[Curve] | None:
    """Return the curves of the runs, running those not finished; None if time was up."""
    curves = []
    for run in runs:
        curve = run.run_or_resume(context)
        if curve is None:
            return None
        curves.append(curve)
    return curves


def _seconds(curves: Sequence[Curve], goal: float, timing: StepTiming | None) -> float:
    """Return the mean seconds to a target, infinite where a seed missed it."""
    at = [crossing(c, goal) for c in curves]
    if not at or any(p is None for p in at):
        return math.inf
    return mean([seconds_of(p, timing) for p in at if p is not None])


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
