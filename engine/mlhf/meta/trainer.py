"""The meta-training loop: what a method finds, curves, checkpoints."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mlhf.core.events import OnEvent, event
from mlhf.core.metrics import Summary, summarize
from mlhf.core.seeds import derive
from mlhf.meta.bptt import TruncatedBPTT
from mlhf.meta.config import (
    PES,
    MetaTrainConfig,
    Search,
    total_iterations,
)
from mlhf.meta.estimators import GradientEstimator
from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import MetaLearner, UnrollResult
from mlhf.meta.meta_adam import MetaAdam
from mlhf.meta.outer_optimizer import OuterOptimizer, OuterStep
from mlhf.meta.pes import GeneratorSnapshot, TruncatedPES
from mlhf.meta.replay import ExperienceReplay
from mlhf.meta.search import CoordinateSearch
from mlhf.meta.task_models import TaskModels
from mlhf.meta.tasks import Task
from mlhf.training import checkpoint
from mlhf.training.checkpoints import Checkpoints
from mlhf.training.clock import Clock
from mlhf.training.trainer import Outcome

# What the curves call each network's loss.
_CURVES = {
    "preconditioner": "meta_loss_p",
    "damping": "meta_loss_s",
    "update": "meta_loss",
    "step": "meta_loss",
}
_MOST_BAD = 20  # estimates in a row that are not finite: then the run has diverged


class MetaTrainer:
    """One attempt at a meta-training run.

    Args:
        config: The run.
        learned: What learns.
        tasks: On what.
        emit: Is told every event.
        run_dir: Where checkpoints go; without it, there are none.
        should_stop: Asked after every iteration whether to stop and be resumed later.
        checkpoint_seconds: Least time between two checkpoints; None for none on the way.
        flush_seconds: Least time between two ``points`` events.
        clock: Counts the seconds.
    """

    def __init__(
        self,
        config: MetaTrainConfig,
        learner: MetaLearner,
        tasks: list[Task],
        *,
        device: torch.device,
        emit: OnEvent,
        run_dir: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        checkpoint_seconds: float | None = None,
        flush_seconds: float = 0.25,
        clock: Clock | None = None,
    ) -> None:
        self.config, self.learner, self.tasks = config, learner, tasks
        self.clock = clock or Clock()
        self.iteration = 0
        self.inner_steps = 0
        self.samples = 0
        self.kinds: set[int] = set()
        self._device = device
        self._emit, self._should_stop = emit, should_stop
        self._checkpoints = Checkpoints(run_dir, checkpoint_seconds, self.clock, emit)
        self._flush_seconds, self._flushed = flush_seconds, time.monotonic()
        self._epoch = sum({id(t): t.samples for t in tasks}.values())
        self._models: dict[int, TaskModels] = {}
        self._batches, self._noise, perturbations = (
            torch.Generator().manual_seed(derive(config.seed, purpose))
            for purpose in ("batches", "noise", "perturbations")
        )
        self.replay = ExperienceReplay(
            _replay_config(config), self._fresh, derive(config.seed, "starts")
        )
        self.outer_optimizer: OuterOptimizer = self._build_outer_optimizer(perturbations)
        self.total = total_iterations(config, config.tasks)
        self._pending: list[dict[str, Any]] = []
        self._summary: dict[str, Summary] = {}
        self._bad = 0
        self._reported = 0

    def run(self) -> Outcome:
        """Meta-train until the run ends or is interrupted."""
        while True:
            stop = self._should_stop()
            if self._bad >= _MOST_BAD:
                self._flush()
                return Outcome("diverged", f"no finite meta-gradient at {self.iteration}")
            over = self.iteration >= self.total
            if over or stop or self._checkpoints.due():
                self._flush()
            if over:
                return Outcome("succeeded", "budget")
            if stop:
                self._checkpoints.write(self.iteration, self.state_dict)
                return Outcome("interrupted", "stopped on request")
            if self._checkpoints.due():
                self._checkpoints.write(self.iteration, self.state_dict)
            self._step()
            if time.monotonic() - self._flushed >= self._flush_seconds:
                self._flush()

    def totals(self) -> dict[str, float]:
        """Return how much was done, and where the seconds went."""
        return {
            "steps": self.iteration,
            "samples": self.samples,
            "epochs": self.samples / self._epoch,
            "wall_seconds": self.clock.seconds("training"),
            "evaluation_seconds": self.clock.seconds("evaluation"),
            "checkpoint_seconds": self.clock.seconds("checkpoint"),
            "compile_seconds": self.clock.seconds("compile"),
        }

    def summary(self) -> dict[str, Summary]:
        """Return each meta-loss's last value, smoothed, and its lowest smoothed one."""
        return dict(self._summary)

    def state_dict(self) -> checkpoint.Tree:
        """Return all that the next iteration depends on. Flush before."""
        return {
            "kind": "meta_train",
            "iteration": self.iteration,
            "inner_steps": self.inner_steps,
            "samples": self.samples,
            "kinds": sorted(self.kinds),
            "networks": {n: dict(net.state_dict()) for n, net in self.learner.networks.items()},
            **self.outer_optimizer.state_dict(),
            "batches": self._batches.get_state(),
            "noise": self._noise.get_state(),
            "rng": checkpoint.rng_state(),
            "clock": self.clock.state_dict(),
            "summary": self.summary(),
            "bad": self._bad,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called."""
        self.iteration = int(state["iteration"])
        self.inner_steps = int(state["inner_steps"])
        self.samples = int(state["samples"])
        self.kinds = {int(k) for k in state["kinds"]}
        for name, net in self.learner.networks.items():
            net.load_state_dict(state["networks"][name])
        self.outer_optimizer.load_state_dict(state, self._device)
        self._batches.set_state(state["batches"])
        self._noise.set_state(state["noise"])
        checkpoint.set_rng_state(state["rng"])
        self.clock.load_state_dict(state["clock"])
        self._summary = dict(state["summary"])
        self._bad = int(state["bad"])
        self._reported = self.iteration

    def _step(self) -> None:
        with self.clock.section("training"):
            found = self.outer_optimizer.step(self.learner, self.iteration)
        self._bad = 0 if found.finite else self._bad + 1
        self.iteration += 1
        self.inner_steps += found.steps
        self._record(found)

    def _unroll(self, start: InnerState) -> UnrollResult:
        models = self._models_of(start.task)
        self.kinds |= {s.kind for s in models.segments}
        batches = [models.task.batch(self._batches) for _ in range(self.config.unroll + 1)]
        self.samples += (len(batches) - 1) * models.task.batch_size
        return self.learner.unroll(models, start, batches, self._noise)

    def _record(self, found: OuterStep) -> None:
        if not found.losses:
            return
        values = {_CURVES[name]: float(loss) for name, loss in found.losses.items()}
        for name, value in values.items():
            self._summarize(name, value)
        values.update({name: float(value) for name, value in found.stats.items()})
        self._pending.append(
            {
                "step": self.iteration,
                "samples": self.samples,
                "epoch": self.samples / self._epoch,
                "wall_seconds": self.clock.seconds("training"),
                "values": values,
            }
        )

    def _summarize(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            return
        before = self._summary.get(name)
        if before is not None:
            last = before["last"]
            value = last + (1 - self.outer_optimizer.smoothing) * (value - last)
        self._summary[name] = summarize(before, name, value, self.iteration)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if self._reported == self.iteration:
            return
        self._reported = self.iteration
        if self._pending:
            self._emit(event("points", points=self._pending))
            self._pending = []
        self._emit(
            event(
                "progress",
                step=self.iteration,
                total_steps=self.total,
                epoch=self.samples / self._epoch,
                samples=self.samples,
                fraction=self.iteration / self.total,
            )
        )

    def _models_of(self, index: int) -> TaskModels:
        if index not in self._models:
            copies = self.config.unroll + 1 if self.learner.keeps_graphs else 1
            self._models[index] = TaskModels(self.tasks[index], index, copies)
        return self._models[index]

    def _fresh(self, random: Any) -> InnerState:
        index = random.randrange(len(self.tasks))
        return self._models_of(index).initialize(random.getrandbits(48))

    def _start(self, task: int, seed: int) -> InnerState:
        return self._models_of(task).initialize(seed)

    def _build_outer_optimizer(self, perturbations: torch.Generator) -> OuterOptimizer:
        chosen = self.config.estimator
        if isinstance(chosen, Search):
            return CoordinateSearch(
                chosen,
                tasks=len(self.tasks),
                seed=self.config.seed,
                start=self._start,
                unroll=self._unroll,
                streams=(self._batches, self._noise),
            )
        estimator: GradientEstimator = TruncatedBPTT(self.replay)
        if isinstance(chosen, PES):
            estimator = TruncatedPES(
                self.replay,
                pairs=chosen.pairs,
                sigma=chosen.sigma,
                horizon=chosen.horizon,
                random=perturbations,
                snapshot=GeneratorSnapshot(self._batches, self._noise),
            )
        return MetaAdam(self.config, self.learner, estimator, self._unroll)


def _replay_config(config: MetaTrainConfig) -> Any:
    # Evolution's trajectories are long by themselves: at their horizon they do end.
    if isinstance(config.estimator, PES):
        return config.replay.model_copy(update={"keep": 0.0})
    return config.replay
