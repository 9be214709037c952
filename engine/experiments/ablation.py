"""What RNN_p is worth: forms of solving along one training trajectory (paper, section 6.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.experiments import ablation_report, figures, tables
from engine.experiments.ablation_config import FORMS, MEASURES, AblationConfig, Form
from engine.experiments.ablation_report import Trajectory
from engine.experiments.configs import UNTRAINED, identity, train_config
from engine.experiments.contract import Context, Task
from engine.experiments.forms import Forms
from engine.experiments.runs import Ended, carry_out, curve_of, result_of
from engine.experiments.statistics import Row
from engine.training.checked import checked
from engine.training.config import TrainConfig
from engine.training.events import Event, OnEvent, event


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
            done = [self._found(f, result) for f in folders if (result := result_of(f)) is not None]
            if not done:
                continue
            rows += ablation_report.rows(task.name, done, self.forms)
            path = context.output / f"{task.name}.png"
            written.append(
                figures.panels(path, ablation_report.panels(task.name, done, self.forms))
            )
        if not rows:
            return []
        return [
            tables.markdown(
                context.output / "table.md", self.title, rows, ablation_report.NOTE
            ),
            tables.csv(context.output / "table.csv", rows),
            *written,
        ]  # fmt: skip

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

    def _found(self, folder: Path, result: Mapping[str, Any]) -> Trajectory:
        """Return what a folder's run came to."""
        names = [form.stat(measure) for form in self.forms for measure in MEASURES]
        # The points of evaluations measure no form.
        points = [point for point in curve_of(folder) if names[0] in point["values"]]
        values = {name: [point["values"][name] for point in points] for name in names}
        samples = [point["samples"] for point in points]
        return Trajectory.of(samples, values, result["status"] == "diverged", self.forms)


def ablate(
    config: AblationConfig | Mapping[str, Any],
    on_event: OnEvent,
    run_dir: Path,
    resume: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float | None = 15.0,
) -> Ended:
    """Measure the paper's forms and their controls along one trajectory, as a job does.

    The arguments are those of ``engine.train``, and so are the events; a step's values are
    called as ``Form.metric`` has it.

    Raises:
        SpecError: where the configuration cannot be run.
        DataError: where a data set, checkpoint or meta-checkpoint cannot be read.
    """
    names = {form.stat(m): form.metric(m) for form in FORMS for m in MEASURES}

    def tell(told: Event) -> None:
        if told["type"] == "points":
            for point in told["points"]:
                point["values"] = {names.get(k, k): v for k, v in point["values"].items()}
        on_event(told)

    return measure(
        checked(AblationConfig, config),
        FORMS,
        run_dir,
        resume,
        tell,
        should_stop,
        checkpoint_seconds,
    )


def measure(
    config: TrainConfig,
    forms: Sequence[Form],
    run_dir: Path,
    resume: str | None,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    checkpoint_seconds: float | None = 15.0,
) -> Ended:
    """Train as ``engine.train`` would with ``mlhf``, all forms measured at each step."""
    import torch

    from engine.data.loading import load
    from engine.data.specs import digest
    from engine.models.build import build
    from engine.models.loss import loss_name
    from engine.training import checkpoint, environment
    from engine.training.reproducible import reproducible
    from engine.training.seeds import derive
    from engine.training.trainer import Trainer

    device = environment.choose_device(config.device)
    source = config.dataset.name, config.dataset.params, config.dataset.root
    with reproducible(config.threads, device):
        data = load(*source)
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
            checkpoint_seconds=checkpoint_seconds,
        )
        if resume is not None:
            trainer.load_state_dict(checkpoint.load(run_dir / resume))
        on_event(
            event(
                "started",
                environment=environment.describe(device, model, config.seed, digest(*source)),
                total_steps=trainer.total_steps,
                resumed_from_step=trainer.step,
                data=data.info.to_dict(),
            )
        )
        outcome = trainer.run()
    totals, summary = trainer.totals(), trainer.recorder.summary()
    if outcome.status == "interrupted":
        on_event(event("interrupted", step=trainer.step))
    else:
        on_event(
            event(
                "finished",
                status=outcome.status,
                reason=outcome.reason,
                totals=totals,
                summary=summary,
                target=None,
            )
        )
    return Ended(outcome.status, outcome.reason, totals, dict(summary))
