"""Meta-train a learned optimizer as its configuration says."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlhf.core import atomic_files
from mlhf.core.checked import checked
from mlhf.core.events import OnEvent
from mlhf.core.seeds import derive
from mlhf.data.cache import DataCache
from mlhf.meta.config import MetaTrainConfig
from mlhf.meta.kronecker_learner import KroneckerLearner
from mlhf.meta.l2l_learner import L2LLearner
from mlhf.meta.learner import MetaLearner
from mlhf.meta.paper_learner import PaperLearner
from mlhf.meta.tasks import build_tasks
from mlhf.meta.trainer import MetaTrainer
from mlhf.optimizers.learned.families import family_of
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from mlhf.training import environment
from mlhf.training.attempt import Attempt
from mlhf.training.clock import Clock
from mlhf.training.execution import execute
from mlhf.training.reproducible import reproducible
from mlhf.training.results import RunResult


@dataclass(frozen=True)
class MetaTrainResult(RunResult):
    """A meta-training run's end; a step is an iteration, and a summary's values are smoothed.

    Attributes:
        checkpoint: The networks as the last iteration left them, with their lineage.
    """

    checkpoint: MetaCheckpoint


def meta_train(
    config: MetaTrainConfig | Mapping[str, Any],
    on_event: OnEvent | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float | None = 15.0,
    flush_seconds: float = 0.25,
    clock: Clock | None = None,
    data_cache: DataCache | str | Path | None = None,
) -> MetaTrainResult:
    """Run a meta-training configuration to its end, or until it is asked to stop.

    Arguments and events are those of ``mlhf.train``. A step is an iteration, its values are
    meta-losses, and the artifacts are ``meta_checkpoint.safetensors`` and its lineage
    ``meta_checkpoint.json``.

    Raises:
        SpecError: where the configuration cannot be run.
        DataError: where a data set, checkpoint or meta-checkpoint cannot be read.
    """
    config = checked(MetaTrainConfig, config, ("bptt", "pes", "search"))
    attempt = Attempt(
        on_event, run_dir, should_stop, checkpoint_seconds, flush_seconds, clock, data_cache
    )
    device = environment.choose_device(config.device)
    with reproducible(config.threads, device):
        tasks, lineage = build_tasks(config.tasks, device, attempt)
        torch.manual_seed(derive(config.seed, "dropout"))
        start = (
            None if config.start is None else load_meta_checkpoint(config.start, _family(config))
        )
        learner = _build_learner(config, start)
        for network in learner.networks.values():
            network.to(device)
        trainer = MetaTrainer(config, learner, tasks, attempt, device)

        def made() -> MetaCheckpoint:
            return MetaCheckpoint(
                _family(config),
                {
                    name: {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
                    for name, network in learner.networks.items()
                },
                _lineage(config, lineage, trainer, start),
            )

        digests = sorted({entry["data_digest"] for entry in lineage})
        holder = torch.nn.ModuleList(learner.networks.values())
        result = execute(
            trainer,
            attempt,
            resume,
            environment=environment.describe(device, holder, config.seed, ",".join(digests)),
            data=None,
            write_artifacts=lambda folder: _write_artifacts(folder, made()),
        )
    return MetaTrainResult(**vars(result), checkpoint=made())


def _family(config: MetaTrainConfig) -> str:
    return family_of(config.optimizer, {"variant": config.variant})


def _build_learner(config: MetaTrainConfig, start: MetaCheckpoint | None) -> MetaLearner:
    seed = derive(config.seed, "networks") >> 2
    learner: MetaLearner
    if config.optimizer == "l2l":
        learner = L2LLearner(seed=seed)
    elif config.variant == "kronecker":
        learner = KroneckerLearner()
    else:
        learner = PaperLearner(
            iterations=config.pcg_iterations,
            step_clip=config.step_clip,
            noise=config.noise,
            seed=seed,
        )
    if start is not None:
        start.into(learner.networks)
    return learner


def _lineage(
    config: MetaTrainConfig,
    tasks: list[dict[str, Any]],
    trainer: MetaTrainer,
    start: MetaCheckpoint | None,
) -> dict[str, Any]:
    """Return how the networks were made, and the lineage of what they started from."""
    before = {} if start is None else dict(start.lineage)
    seen = set() if start is None else set(start.kinds)
    kinds = {0} if config.optimizer == "l2l" else trainer.kinds | seen
    settings = config.model_dump(mode="json")
    settings["tasks"] = tasks
    settings["start"] = None if config.start is None else Path(config.start).name
    return {
        **({"start": before} if before else {}),
        **trainer.outer_optimizer.lineage(),
        "config": settings,
        "seed": config.seed,
        "iterations": trainer.step,
        "inner_steps": trainer.inner_steps,
        "wall_seconds": round(trainer.clock.seconds("training"), 1),
        "kinds": sorted(kinds),
        "summary": trainer.summary(),
        "torch": torch.__version__,
        "command": _command(),
    }


def _command() -> str:
    """Return how the process was started, without the machine's paths."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    if program == "runner.py":
        program = "python -m mlhf.runner"
    return " ".join([program, *(shlex.quote(Path(w).name) for w in sys.argv[1:])])


def _write_artifacts(folder: Path, made: MetaCheckpoint) -> list[tuple[str, str]]:
    made.save(folder / "meta_checkpoint.safetensors")
    document = {"optimizer": made.optimizer, **made.lineage}
    atomic_files.write(folder / "meta_checkpoint.json", json.dumps(document, indent=2).encode())
    return [
        ("meta_checkpoint.safetensors", "application/octet-stream"),
        ("meta_checkpoint.json", "application/json"),
    ]
