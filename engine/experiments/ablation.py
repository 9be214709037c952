"""What RNN_p is worth: forms of solving along one training trajectory (paper, section 6.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.experiments import figures, tables
from engine.experiments.configs import UNTRAINED, identity, train_config
from engine.experiments.contract import Context, Task
from engine.experiments.forms import FORMS, STEPPING, Form, Forms
from engine.experiments.runs import Ended, carry_out, curve_of, result_of
from engine.experiments.statistics import Row, mean, summarize
from engine.training.config import TrainConfig
from engine.training.events import OnEvent, event

_BINS = 50  # what a figure's line is averaged to
_MATRICES = {"learned": "Ĝ damped by RNN_s", "adam": "Ĝ damped as in hf_adam"}
Points = list[dict[str, Any]]


@dataclass(frozen=True)
class Ablation:
    """Forms of solving on one or several tasks, for several seeds."""

    title: str
    tasks: Sequence[Task]
    forms: Sequence[Form] = FORMS

    def settings(self) -> list[str]:
        return [task.name for task in self.tasks]

    def run(self, context: Context) -> bool:
        chosen = [t for t in self.tasks if not context.only or t.name in context.only]
        done = [self._trajectory(context, t, seed) for t in chosen for seed in context.seeds]
        return all(done)

    def report(self, context: Context) -> list[Path]:
        rows: list[Row] = []
        written = []
        for task in self.tasks:
            folders = [self._folder(context, task, seed) for seed in context.seeds]
            curves = [_steps(curve_of(f)) for f in folders if result_of(f) is not None]
            if not curves:
                continue
            rows += [self._row(task, form, curves) for form in self.forms]
            written.append(self._figure(context.output / f"{task.name}.png", task, curves))
        if not rows:
            return []
        note = (
            f"Means over all steps of a trajectory, then over seeds (lowest to highest); θ is "
            f"moved by {STEPPING!r}. l_p and ‖r‖: lower is better. All forms of one damping "
            "solve the same systems; l_p does not compare between dampings, nor do its "
            "means where single steps dwarf the rest; its part of the longest solve's, taken "
            "step by step, does (higher is better). s: RNN_s in the learned damping, "
            "Adam-shaped and not learned in hf_adam's."
        )
        return [
            tables.markdown(context.output / "table.md", self.title, rows, note),
            tables.csv(context.output / "table.csv", rows),
            *written,
        ]

    def _trajectory(self, context: Context, task: Task, seed: int) -> bool:
        config = train_config(context, task, "mlhf", {"variant": "paper"}, seed)
        document = {**identity(config), "forms": [vars(form) for form in self.forms]}
        folder = self._folder(context, task, seed)
        if result_of(folder) is None and not context.stop():
            context.say(f"{folder.relative_to(context.output)} ...")

        def go(
            run_dir: Path, resume: str | None, on_event: OnEvent, should_stop: Callable[[], bool]
        ) -> Ended:
            return measure(config, self.forms, run_dir, resume, on_event, should_stop)

        return carry_out(folder, document, go, context.stop, keep=lambda _: True) is not None

    def _folder(self, context: Context, task: Task, seed: int) -> Path:
        return context.output / "runs" / task.name / f"seed={seed}"

    def _row(self, task: Task, form: Form, curves: Sequence[Points]) -> Row:
        l_p, residual = (
            [mean([p["values"][f"{what}/{form.name}"] for p in c]) for c in curves]
            for what in ("l_p", "residual")
        )
        longest = max((f for f in self.forms if f.matrix == form.matrix), key=_iterations)
        part = [
            mean([p["values"][f"l_p/{form.name}"] / p["values"][f"l_p/{longest.name}"] for p in c])
            for c in curves
        ]
        return {
            "task": task.name,
            "damping": form.matrix,
            "form": form.name,
            "seeds": len(curves),
            "steps": len(curves[0]),
            "mean l_p": summarize(l_p),
            "part of the longest solve's": summarize(part, 3),
            "mean ‖r‖/‖b‖": summarize(residual, 3),
        }

    def _figure(self, path: Path, task: Task, curves: Sequence[Points]) -> Path:
        rows = []
        for matrix, title in _MATRICES.items():
            forms = [form for form in self.forms if form.matrix == matrix]
            rows.append(
                [
                    (f"{task.name}: {title}", label,
                     [(f.name, *_line(curves, f"{what}/{f.name}")) for f in forms])
                    for what, label in (("l_p", "l_p"), ("residual", "‖r‖/‖b‖"))
                ]
            )  # fmt: skip
        return figures.panels(path, [row for row in rows if row[0][2]])


def measure(
    config: TrainConfig,
    forms: Sequence[Form],
    run_dir: Path,
    resume: str | None,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
) -> Ended:
    """Train as ``engine.train`` would with ``mlhf``, all forms measured at each step."""
    import torch

    from engine.data.loading import load
    from engine.models.build import build
    from engine.models.loss import loss_name
    from engine.training import checkpoint, environment
    from engine.training.reproducible import reproducible
    from engine.training.seeds import derive
    from engine.training.trainer import Trainer

    device = environment.choose_device(config.device)
    with reproducible(config.threads, device):
        data = load(config.dataset.name, config.dataset.params, config.dataset.root)
        seed = derive(config.seed, "initialization")
        model = build(config.model.name, config.model.params, data.info, seed).to(device)
        torch.manual_seed(derive(config.seed, "dropout"))
        loss = loss_name(data.info)
        named = str(config.optimizer.params["meta_checkpoint"])
        meta = None if named == UNTRAINED else named
        trainer = Trainer(
            config,
            model,
            data,
            loss,
            Forms(model, loss, meta, forms),
            emit=on_event,
            run_dir=run_dir,
            should_stop=should_stop,
            checkpoint_seconds=15.0,
        )
        if resume is not None:
            trainer.load_state_dict(checkpoint.load(run_dir / resume))
        described = environment.describe(device, model, config.seed, "")
        on_event(event("started", environment=described))
        outcome = trainer.run()
    summary: Mapping[str, Any] = trainer.recorder.summary()
    return Ended(outcome.status, outcome.reason, trainer.totals(), dict(summary))


def _iterations(form: Form) -> int:
    return form.iterations


def _steps(points: Points) -> Points:
    """Return the points of steps: those of evaluations measure no form."""
    return [p for p in points if any(name.startswith("l_p/") for name in p["values"])]


def _line(curves: Sequence[Points], name: str) -> tuple[list[float], list[float]]:
    """Return a value by samples seen: mean over seeds, and over neighbouring steps."""
    steps = min(map(len, curves))
    width = max(1, steps // _BINS)
    xs, ys = [], []
    for start in range(0, steps - width + 1, width):
        block = [p for c in curves for p in c[start : start + width]]
        xs.append(mean([p["samples"] for p in block]))
        ys.append(mean([p["values"][name] for p in block]))
    return xs, ys
