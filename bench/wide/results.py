"""From the table's runs to numbers: which setting was chosen, and what it took to the target."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.harness.statistics import Curve
from bench.judge.measures import crossing, estimate, final, score, targets
from bench.judge.results import Reached
from bench.wide.contenders import CONTENDERS, REFERENCE, Contender, contender
from bench.wide.machine import STEP_SECONDS
from bench.wide.table import COLUMNS, Row

# fixed: one setting for all tasks, AlgoPerf's self-tuning form; tuned: one for each task.
Form = Literal["fixed", "tuned"]
FORMS: tuple[Form, ...] = ("fixed", "tuned")
Cost = Literal["samples", "seconds"]

_DEVELOPMENT = "-development"
_WORST = 5.0  # a setting that diverges on a task counts as e⁵ times the best loss there


def best_setting(rows: Iterable[Row], task: str, each: Contender) -> int | None:
    """Return the setting with the lowest score on the seed for tuning; None if none was tried."""
    if len(each.settings) == 1:
        return 0
    scores = _scores(rows, each).get(task, {})
    return min(scores, key=scores.__getitem__, default=None)


def fixed_setting(rows: Iterable[Row], each: Contender) -> int | None:
    """Return the one setting for all tasks: the least mean regret over development versions.

    A regret is how much higher the score is than that of the contender's best setting on the
    task, e⁵ at most. Only settings count that were tried on as many tasks as any.
    """
    if len(each.settings) == 1:
        return 0
    regrets: dict[int, list[float]] = {}
    for task, scores in _scores(rows, each).items():
        best = min(scores.values())
        if task.endswith(_DEVELOPMENT) and best < math.inf:
            for setting, value in scores.items():
                regrets.setdefault(setting, []).append(min(value - best, _WORST))
    most = max(map(len, regrets.values()), default=0)
    means = {s: sum(of) / most for s, of in regrets.items() if len(of) == most}
    return min(means, key=means.__getitem__, default=None)


def _scores(rows: Iterable[Row], each: Contender) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.contender == each.name and row.tuning:
            value = score(row.measured()) if row.curve else math.inf
            found.setdefault(row.task, {})[row.setting] = value
    return found


@dataclass(frozen=True)
class TaskNumbers:
    """All that was run of one task.

    Attributes:
        curves: By form and contender, a curve a seed.
        settings: By form and contender, the setting's place.
        target: The mean training loss that AdamW, tuned for the task, ends at; None without it.
    """

    name: str
    curves: Mapping[Form, Mapping[str, Mapping[int, Curve]]]
    settings: Mapping[Form, Mapping[str, int]]
    target: float | None

    @property
    def contenders(self) -> list[str]:
        """Those that were run, in the order of ``CONTENDERS``."""
        found = {name for of in self.curves.values() for name in of}
        return [each.name for each in CONTENDERS if each.name in found]

    def reached(self, form: Form, name: str) -> Reached | None:
        """Return what it took to the target; None where it was not run."""
        curves = self.curves[form].get(name)
        if not curves or self.target is None:
            return None
        at = [self._crossing(form, name, curve) for curve in curves.values()]
        hit = [each for each in at if each is not None]
        never = [math.inf] * (len(at) - len(hit))
        return Reached(
            estimate([*(each["samples"] for each in hit), *never]),
            estimate([*(each["wall_seconds"] for each in hit), *never]),
            len(never),
        )

    def costs(self, form: Form, name: str, cost: Cost) -> list[float]:
        """Return the cost of each seed to the target; a miss costs twice the contender's run."""
        if self.target is None:
            return []
        key = "samples" if cost == "samples" else "wall_seconds"
        found = []
        for curve in self.curves[form].get(name, {}).values():
            at = self._crossing(form, name, curve)
            found.append(2 * _whole(self, form, name, key) if at is None else max(at[key], 1e-9))
        return found

    def _crossing(self, form: Form, name: str, curve: Curve) -> Mapping[str, float] | None:
        """Return where a seed reached the target, None where it did not.

        Of tuned AdamW the target is the mean: a seed that ends above it took its whole run.
        """
        if self.target is None:
            return None
        at = crossing(curve, self.target)
        setting = self.settings[form].get(name)
        if at is None and name == REFERENCE and setting == self.settings["tuned"].get(name):
            at = curve.points[-1] if curve.points else None
        return at

    def final(self, form: Form, name: str) -> float:
        """Return the mean final training loss; infinite where a seed diverged."""
        return estimate([final(curve) for curve in self.curves[form][name].values()]).mean


def _whole(numbers: TaskNumbers, form: Form, name: str, key: str) -> float:
    """Return what the contender's longest whole run came to; where all diverged, anybody's."""
    own = {name: numbers.curves[form][name]}
    for of in (own, numbers.curves[form]):
        ends = [
            float(curve.points[-1][key])
            for curves in of.values()
            for curve in curves.values()
            if curve.points and curve.result["status"] == "succeeded"
        ]
        if ends:
            return max(ends)
    return math.inf


def collect(rows: Sequence[Row], task: str) -> TaskNumbers:
    """Return the numbers of a task, of the latest run of each contender, setting and seed."""
    latest: dict[tuple[str, int], dict[int, Row]] = {}
    for row in rows:
        if row.task == task and not row.tuning:
            latest.setdefault((row.contender, row.setting), {})[row.seed] = row
    unit = _reference_step(latest)
    curves: dict[Form, dict[str, dict[int, Curve]]] = {form: {} for form in FORMS}
    settings: dict[Form, dict[str, int]] = {form: {} for form in FORMS}
    for each in CONTENDERS:
        chosen = {"fixed": fixed_setting(rows, each), "tuned": best_setting(rows, task, each)}
        for form in FORMS:
            setting = chosen[form]
            found = None if setting is None else latest.get((each.name, setting))
            if setting is not None and found:
                settings[form][each.name] = setting
                curves[form][each.name] = {
                    seed: row.measured(_slowness(row, unit)) for seed, row in sorted(found.items())
                }
    reference = curves["tuned"].get(REFERENCE)
    target = targets(list(reference.values()))["100"] if reference else None
    return TaskNumbers(task, curves, settings, target)


def _reference_step(latest: Mapping[tuple[str, int], Mapping[int, Row]]) -> float | None:
    """Return the CPU seconds of a step of AdamW where the table was begun; None if unknown."""
    found = [
        row.curve[-1][COLUMNS.index("cpu_seconds")] / row.curve[-1][COLUMNS.index("step")]
        for (name, _), rows in latest.items()
        for row in rows.values()
        if name == REFERENCE and row.status == "succeeded" and STEP_SECONDS not in row.environment
    ]
    if not found:
        found = [
            row.environment[STEP_SECONDS]
            for rows in latest.values()
            for row in rows.values()
            if STEP_SECONDS in row.environment
        ]
    return sum(found) / len(found) if found else None


def _slowness(row: Row, unit: float | None) -> float:
    """Return how much longer a step took where and when a row was made; 1 where nobody knows."""
    taken: float | None = row.environment.get(STEP_SECONDS)
    return 1.0 if taken is None or unit is None else taken / unit


def fastest_peer(numbers: TaskNumbers, form: Form, cost: Cost) -> tuple[str, float] | None:
    """Return the peer with the lowest mean cost to the target, None where none reached it."""
    found = {}
    for name in numbers.contenders:
        reached = numbers.reached(form, name)
        if not contender(name).candidate and reached is not None and not reached.missed:
            found[name] = (reached.samples if cost == "samples" else reached.seconds).mean
    best = min(found, key=found.__getitem__, default=None)
    return None if best is None else (best, found[best])


def place_of(numbers: TaskNumbers, form: Form, cost: Cost, name: str) -> int | None:
    """Return a contender's place among the peers, 1 the first; None where it missed."""
    own = numbers.reached(form, name)
    if own is None or own.missed:
        return None
    mine = (own.samples if cost == "samples" else own.seconds).mean
    ahead = 0
    for other in numbers.contenders:
        reached = numbers.reached(form, other)
        if contender(other).candidate or reached is None or reached.missed:
            continue
        ahead += (reached.samples if cost == "samples" else reached.seconds).mean < mine
    return ahead + 1
