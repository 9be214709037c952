"""One ablation run: the paper's forms of solving, measured along one trajectory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlhf.ablation.config import MEASURES, SOLVER_VARIANTS, AblationConfig, SolverVariant
from mlhf.ablation.solver_comparison import SolverComparison
from mlhf.core.checked import checked
from mlhf.core.events import Event, OnEvent, event
from mlhf.core.metrics import Summary
from mlhf.core.seeds import derive
from mlhf.data.loading import load
from mlhf.data.specs import digest
from mlhf.models.build import build
from mlhf.models.loss import loss_name
from mlhf.optimizers.learned.families import UNTRAINED
from mlhf.training import checkpoint, environment
from mlhf.training.config import TrainConfig
from mlhf.training.reproducible import reproducible
from mlhf.training.trainer import Trainer


@dataclass(frozen=True)
class Ended:
    """How a run's attempt ended; ``status`` ``interrupted`` means that it is to go on."""

    status: str
    reason: str
    totals: dict[str, float]
    summary: dict[str, Summary]


def ablate(
    config: AblationConfig | Mapping[str, Any],
    on_event: OnEvent,
    run_dir: Path,
    resume: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float | None = 15.0,
) -> Ended:
    """Measure the paper's forms and their controls along one trajectory, as a job does.

    The arguments are those of ``mlhf.train``, and so are the events; a step's values are
    called as ``SolverVariant.metric`` has it.

    Raises:
        SpecError: where the configuration cannot be run.
        DataError: where a data set, checkpoint or meta-checkpoint cannot be read.
    """
    names = {variant.stat(m): variant.metric(m) for variant in SOLVER_VARIANTS for m in MEASURES}

    def tell(told: Event) -> None:
        if told["type"] == "points":
            for point in told["points"]:
                point["values"] = {names.get(k, k): v for k, v in point["values"].items()}
        on_event(told)

    return measure_variants(
        checked(AblationConfig, config),
        SOLVER_VARIANTS,
        run_dir,
        resume,
        tell,
        should_stop,
        checkpoint_seconds,
    )


def measure_variants(
    config: TrainConfig,
    variants: Sequence[SolverVariant],
    run_dir: Path,
    resume: str | None,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    checkpoint_seconds: float | None = 15.0,
) -> Ended:
    """Train as ``mlhf.train`` would with ``mlhf``, all forms measured at each step."""
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
            SolverComparison(model, loss, meta, variants),
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
    return Ended(outcome.status, outcome.reason, totals, summary)
