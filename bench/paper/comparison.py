"""Optimizers on one task: settings chosen on a tuning seed, compared on other seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import figures
from bench.harness.configs import identity, train_config
from bench.harness.contract import (
    Context,
    Result,
    Setting,
    Task,
)
from bench.harness.runs import (
    read_curve,
    read_result,
    run_or_resume,
    training,
)
from bench.harness.statistics import Curve, reached
from mlhf.ablation import tables
from mlhf.ablation.statistics import Row, summarize
from mlhf.core.metrics import parse_number

TUNING_SEED = 1000  # never among the seeds that are compared


@dataclass(frozen=True)
class Comparison:
    """Optimizers on one task (paper, section 6.1)."""

    title: str
    task: Task
    choices: Sequence[Setting]

    def settings(self) -> list[str]:
        return [setting.name for setting in self.choices]

    def run(self, context: Context) -> bool:
        return all(self._setting(context, s) for s in self._chosen(context))

    def report(self, context: Context) -> list[Path]:
        curves = {s.name: self._curves(context, s) for s in self.choices}
        curves = {name: found for name, found in curves.items() if found}
        if not curves:
            return []
        first_order = [c for s in self.choices if s.grid for c in curves.get(s.name, [])]
        target = self._target(curves) if first_order else None
        rows = [
            self._row(context, s, curves[s.name], target) for s in self.choices if s.name in curves
        ]
        out = context.output
        note = (
            f"Task: {self.task.model.name} on {self.task.dataset.name}, "
            f"{self.task.budget.model_dump(exclude_none=True)}. "
            "Mean over seeds (lowest to highest). "
        )
        if target is not None:
            note += (
                f"Target: {target:.4f}, the final mean training loss of the best tuned "
                "first-order optimizer; samples and seconds are those until each seed's first "
                "evaluation at or below it, where all seeds got there."
            )
        return [
            tables.markdown(out / "table.md", self.title, rows, note),
            tables.csv(out / "table.csv", rows),
            figures.comparison(out / "samples.png", curves, "samples"),
            figures.comparison(out / "seconds.png", curves, "wall_seconds"),
        ]

    def _chosen(self, context: Context) -> list[Setting]:
        return [s for s in self.choices if not context.only or s.name in context.only]

    def _setting(self, context: Context, setting: Setting) -> bool:
        """Run one setting's grid, then its best on every seed; return whether all is done."""
        best = self._tuned(context, setting, self._train)
        if best is None:
            return False
        results = [self._train(context, setting, best, seed) for seed in context.seeds]
        return all(result is not None for result in results)

    def _tuned(
        self,
        context: Context,
        setting: Setting,
        get: Callable[[Context, Setting, Mapping[str, Any], int], Result | None],
    ) -> Mapping[str, Any] | None:
        """Return the choice with the lowest final training loss, None while one is missing."""
        if not setting.grid:
            return {}
        results = [get(context, setting, choice, TUNING_SEED) for choice in setting.grid]
        losses = [_final(result) for result in results if result is not None]
        if len(losses) < len(results):
            return None
        return setting.grid[losses.index(min(losses))]

    def _train(
        self, context: Context, setting: Setting, choice: Mapping[str, Any], seed: int
    ) -> Result | None:
        params = {**setting.params, **choice}
        config = train_config(
            context, self.task, setting.optimizer, params, seed, setting.batch_size
        )
        folder = self._folder(context, setting, choice, seed)
        if read_result(folder) is None and not context.stop():
            context.log(f"{folder.relative_to(context.output)} ...")

        return run_or_resume(folder, identity(config), training(config), context.stop)

    def _folder(
        self, context: Context, setting: Setting, choice: Mapping[str, Any], seed: int
    ) -> Path:
        label = "-".join([*(f"{k}={_short(v)}" for k, v in choice.items()), f"seed={seed}"])
        return context.output / "runs" / setting.name / label

    def _curves(self, context: Context, setting: Setting) -> list[Curve]:
        best = self._tuned(context, setting, self._found)
        if best is None:
            return []
        folders = [self._folder(context, setting, best, seed) for seed in context.seeds]
        results = [(folder, read_result(folder)) for folder in folders]
        return [Curve(read_curve(f), result) for f, result in results if result is not None]

    def _found(
        self, context: Context, setting: Setting, choice: Mapping[str, Any], seed: int
    ) -> Result | None:
        return read_result(self._folder(context, setting, choice, seed))

    def _target(self, curves: Mapping[str, Sequence[Curve]]) -> float:
        tuned = [curves[s.name] for s in self.choices if s.grid and s.name in curves]
        return min(sum(c.final("train_loss") for c in cs) / len(cs) for cs in tuned)

    def _row(
        self, context: Context, setting: Setting, curves: Sequence[Curve], target: float | None
    ) -> Row:
        best = self._tuned(context, setting, self._found) or {}
        named = {**setting.params, **best}
        row: Row = {
            "optimizer": setting.name,
            "parameters": ", ".join(f"{k}={_short(v)}" for k, v in named.items()) or "defaults",
            "batch": setting.batch_size or self.task.batch_size,
            "seeds": len(curves),
            "final training loss": summarize([c.final("train_loss") for c in curves]),
            "mean over the curve": summarize([c.mean("train_loss") for c in curves]),
            "test accuracy": summarize([c.final("test_accuracy") for c in curves], 3),
            "seconds": summarize([c.seconds for c in curves], 2),
            "ms a step": summarize([1e3 * c.seconds / max(c.steps, 1) for c in curves], 1),
        }
        if target is not None:
            at = [reached(c, target) for c in curves]
            hit = [p for p in at if p is not None]
            missed = len(hit) < len(at)
            row["samples to target"] = (
                "missed" if missed else summarize([p["samples"] for p in hit], 0)
            )
            row["seconds to target"] = (
                "missed" if missed else summarize([p["wall_seconds"] for p in hit], 2)
            )
        return row


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _final(result: Result) -> float:
    """Return the final training loss, infinite where the run diverged."""
    last = result["summary"].get("train_loss", {}).get("last", math.inf)
    value = parse_number(last)
    return value if result["status"] == "succeeded" and math.isfinite(value) else math.inf
