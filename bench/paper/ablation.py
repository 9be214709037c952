"""What RNN_p is worth: solver variants along one training trajectory (paper, section 6.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.configs import identity, train_config
from bench.harness.contract import Context, Task
from bench.harness.runs import read_curve, read_result, run_or_resume
from mlhf.ablation import report as ablation_report
from mlhf.ablation import tables
from mlhf.ablation.config import (
    MEASURES,
    SOLVER_VARIANTS,
    SolverVariant,
)
from mlhf.ablation.report import Trajectory
from mlhf.ablation.run import measure_variants
from mlhf.ablation.statistics import Row
from mlhf.core.events import OnEvent
from mlhf.training.results import RunResult
from mlhf_service.kit.panels import panels_png


@dataclass(frozen=True)
class Ablation:
    """Solver variants on one or several tasks, for several seeds."""

    title: str
    tasks: Sequence[Task]
    variants: Sequence[SolverVariant] = SOLVER_VARIANTS

    def settings(self) -> list[str]:
        return [task.name for task in self.tasks]

    def run(self, context: Context) -> bool:
        chosen = [t for t in self.tasks if not context.only or t.name in context.only]
        done = [self._run(context, t, seed) for t in chosen for seed in context.seeds]
        return all(done)

    def report(self, context: Context) -> list[Path]:
        rows: list[Row] = []
        written = []
        for task in self.tasks:
            folders = [self._folder(context, task, seed) for seed in context.seeds]
            results = [(folder, read_result(folder)) for folder in folders]
            done = [self._trajectory(f, result) for f, result in results if result is not None]
            if not done:
                continue
            rows += ablation_report.rows(task.name, done, self.variants)
            path = context.output / f"{task.name}.png"
            path.write_bytes(panels_png(ablation_report.panels(task.name, done, self.variants)))
            written.append(path)
        if not rows:
            return []
        return [
            tables.markdown(context.output / "table.md", self.title, rows, ablation_report.NOTE),
            tables.csv(context.output / "table.csv", rows),
            *written,
        ]

    def _run(self, context: Context, task: Task, seed: int) -> bool:
        config = train_config(context, task, "mlhf", {"variant": "paper"}, seed)
        document = {**identity(config), "forms": [vars(variant) for variant in self.variants]}
        folder = self._folder(context, task, seed)
        if read_result(folder) is None and not context.stop():
            context.log(f"{folder.relative_to(context.output)} ...")

        def run(
            run_dir: Path, resume: str | None, on_event: OnEvent, should_stop: Callable[[], bool]
        ) -> RunResult:
            return measure_variants(config, self.variants, run_dir, resume, on_event, should_stop)

        return run_or_resume(folder, document, run, context.stop, keep=lambda _: True) is not None

    def _folder(self, context: Context, task: Task, seed: int) -> Path:
        return context.output / "runs" / task.name / f"seed={seed}"

    def _trajectory(self, folder: Path, result: Mapping[str, Any]) -> Trajectory:
        """Return the result of the run in a folder."""
        names = [variant.stat(measure) for variant in self.variants for measure in MEASURES]
        # Points of evaluations have no measures of solves.
        points = [point for point in read_curve(folder) if names[0] in point["values"]]
        values = {name: [point["values"][name] for point in points] for name in names}
        samples = [point["samples"] for point in points]
        return Trajectory.of(samples, values, result["status"] == "diverged", self.variants)
