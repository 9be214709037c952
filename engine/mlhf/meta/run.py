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
from mlhf.core.events import OnEvent, event
from mlhf.core.metrics import Summary
from mlhf.core.seeds import derive
from mlhf.meta.config import MetaTrainConfig
from mlhf.meta.kronecker_learner import KroneckerLearner
from mlhf.meta.l2l_learner import L2LLearner
from mlhf.meta.learner import MetaLearner
from mlhf.meta.paper_learner import PaperLearner
from mlhf.meta.tasks import build_tasks
from mlhf.meta.trainer import MetaTrainer
from mlhf.optimizers.learned.families import family_of
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from mlhf.training import checkpoint, environment
from mlhf.training.clock import Clock
from mlhf.training.reproducible import reproducible
from mlhf.training.trainer import Status


@dataclass(frozen=True)
class MetaTrainResult:
    """A meta-training run's end.

    Attributes:
        status: ``succeeded``, ``diverged`` or ``interrupted``.
        reason: ``budget``, or a sentence.
        totals: Iterations (as ``steps``), samples, and the seconds of each kind.
        summary: Each meta-loss's last and best smoothed value.
        checkpoint: The networks as the last iteration left them, with their lineage.
    """

    status: Status
    reason: str
    totals: dict[str, float]
    summary: dict[str, Summary]
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
) -> MetaTrainResult:
    """Run a meta-training configuration to its end, or until it is asked to stop.

    The arguments are those of ``mlhf.train``, and so are the events; a step is an
    iteration, its values are meta-losses, and the artifacts are ``meta_checkpoint.safetensors``
    and its lineage ``meta_checkpoint.json``.

    Raises:
        SpecError: where the configuration cannot be run.
        DataError: where a data set, checkpoint or meta-checkpoint cannot be read.
    """
    config = checked(MetaTrainConfig, config, ("bptt", "pes", "search"))
    emit: OnEvent = on_event or (lambda _: None)
    folder = None if run_dir is None else Path(run_dir)
    device = environment.choose_device(config.device)
    with reproducible(config.threads, device):
        tasks, lineage = build_tasks(config.tasks, device)
        torch.manual_seed(derive(config.seed, "dropout"))
        start = (
            None if config.start is None else load_meta_checkpoint(config.start, _family(config))
        )
        learner = _learned(config, start)
        for network in learner.networks.values():
            network.to(device)
        trainer = MetaTrainer(
            config,
            learner,
            tasks,
            device=device,
            emit=emit,
            run_dir=folder,
            should_stop=should_stop or (lambda: False),
            checkpoint_seconds=checkpoint_seconds,
            flush_seconds=flush_seconds,
            clock=clock,
        )
        if resume is not None:
            trainer.load_state_dict(checkpoint.load((folder or Path()) / resume))
        digests = sorted({entry["data_digest"] for entry in lineage})
        holder = torch.nn.ModuleList(learner.networks.values())
        emit(
            event(
                "started",
                environment=environment.describe(device, holder, config.seed, ",".join(digests)),
                total_steps=trainer.total,
                resumed_from_step=trainer.iteration,
                data=None,
            )
        )
        outcome = trainer.run()
    made = MetaCheckpoint(
        _family(config),
        {
            name: {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
            for name, network in learner.networks.items()
        },
        _lineage(config, lineage, trainer, start),
    )
    if outcome.status == "interrupted":
        emit(event("interrupted", step=trainer.iteration))
    else:
        if folder is not None:
            _write_artifacts(folder, made, emit)
        emit(
            event(
                "finished",
                status=outcome.status,
                reason=outcome.reason,
                totals=trainer.totals(),
                summary=trainer.summary(),
                target=None,
            )
        )
    return MetaTrainResult(
        outcome.status, outcome.reason, trainer.totals(), trainer.summary(), made
    )


def _family(config: MetaTrainConfig) -> str:
    return family_of(config.optimizer, {"variant": config.variant})


def _learned(config: MetaTrainConfig, start: MetaCheckpoint | None) -> MetaLearner:
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
    """Return how the networks were made; what they began from, too, said its lineage."""
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
        "iterations": trainer.iteration,
        "inner_steps": trainer.inner_steps,
        "wall_seconds": round(trainer.clock.seconds("training"), 1),
        "kinds": sorted(kinds),
        "summary": trainer.summary(),
        "torch": torch.__version__,
        "command": _command(),
    }


def _command() -> str:
    """How the process was started, without the machine's paths."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    if program == "runner.py":
        program = "python -m mlhf.runner"
    return " ".join([program, *(shlex.quote(Path(w).name) for w in sys.argv[1:])])


def _write_artifacts(folder: Path, made: MetaCheckpoint, emit: OnEvent) -> None:
    target = folder / "artifacts"
    target.mkdir(parents=True, exist_ok=True)
    made.save(target / "meta_checkpoint.safetensors")
    document = {"optimizer": made.optimizer, **made.lineage}
    atomic_files.write(target / "meta_checkpoint.json", json.dumps(document, indent=2).encode())
    for name, content_type in (
        ("meta_checkpoint.safetensors", "application/octet-stream"),
        ("meta_checkpoint.json", "application/json"),
    ):
        size, sha256 = atomic_files.size_and_sha256(target / name)
        emit(
            event(
                "artifact",
                name=name,
                path=f"artifacts/{name}",
                content_type=content_type,
                size=size,
                sha256=sha256,
            )
        )
