"""One ablation run: solver variants measured along one trajectory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlhf.ablation.config import MEASURES, SOLVER_VARIANTS, AblationConfig, SolverVariant
from mlhf.ablation.solver_comparison import SolverComparison
from mlhf.core.checked import checked
from mlhf.core.events import Event, OnEvent
from mlhf.data.cache import DataCache
from mlhf.models.loss import make_loss
from mlhf.optimizers.learned.families import UNTRAINED
from mlhf.training import environment
from mlhf.training.attempt import Attempt
from mlhf.training.config import TrainConfig
from mlhf.training.execution import execute
from mlhf.training.reproducible import reproducible
from mlhf.training.results import RunResult
from mlhf.training.run import build_network, describe
from mlhf.training.trainer import Trainer


def ablate(
    config: AblationConfig | Mapping[str, Any],
    on_event: OnEvent,
    run_dir: Path,
    resume: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float | None = 15.0,
    data_cache: DataCache | None = None,
) -> RunResult:
    """Measure the paper's solver variants and their controls along one trajectory.

    Arguments and events are those of ``mlhf.train``; a step's values are named by
    ``SolverVariant.metric``.

    Raises:
        SpecError: where the configuration cannot be run.
        DataError: where a data set, checkpoint or meta-checkpoint cannot be read.
    """
    names = {variant.stat(m): variant.metric(m) for variant in SOLVER_VARIANTS for m in MEASURES}

    def report(event: Event) -> None:
        if event["type"] == "points":
            for point in event["points"]:
                point["values"] = {names.get(k, k): v for k, v in point["values"].items()}
        on_event(event)

    return measure_variants(
        checked(AblationConfig, config),
        SOLVER_VARIANTS,
        run_dir,
        resume,
        report,
        should_stop,
        checkpoint_seconds,
        data_cache,
    )


def measure_variants(
    config: TrainConfig,
    variants: Sequence[SolverVariant],
    run_dir: Path,
    resume: str | None,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    checkpoint_seconds: float | None = 15.0,
    data_cache: DataCache | None = None,
) -> RunResult:
    """Train as ``mlhf.train`` would with ``mlhf``, all variants measured at each step."""
    attempt = Attempt(on_event, run_dir, should_stop, checkpoint_seconds, data_cache=data_cache)
    device = environment.choose_device(config.device)
    with reproducible(config.threads, device):
        model, data = build_network(config, device, attempt)
        loss = make_loss(data.info)
        named = str(config.optimizer.params["meta_checkpoint"])
        optimizer = SolverComparison(model, loss, None if named == UNTRAINED else named, variants)
        trainer = Trainer(config, model, data, loss, optimizer, attempt)
        return execute(
            trainer,
            attempt,
            resume,
            environment=describe(config, device, data, trainer),
            data=data.info.to_dict(),
        )
