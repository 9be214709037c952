"""The meta-training loop."""

import math
from collections.abc import Mapping
from typing import Any

import torch

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
from mlhf.training.attempt import Attempt
from mlhf.training.recorder import CurveRecorder
from mlhf.training.run_loop import RunLoop

# The metric of each network's loss.
_CURVES = {
    "preconditioner": "meta_loss_p",
    "damping": "meta_loss_s",
    "update": "meta_loss",
    "step": "meta_loss",
}
_MOST_BAD = 20  # after so many estimates in a row that were not finite, the run has diverged


class MetaTrainer(RunLoop):
    """Trains a learned optimizer; a step of the loop is an iteration of its outer optimizer.

    Args:
        config: The run.
        learner: What learns.
        tasks: What it learns on.
        attempt: Where to report and write, and who may stop the run.
        device: Where tasks and networks are.

    Attributes:
        inner_steps: Steps of inner training so far, over all attempts.
        kinds: Kinds of parameters that the networks have seen.
    """

    def __init__(
        self,
        config: MetaTrainConfig,
        learner: MetaLearner,
        tasks: list[Task],
        attempt: Attempt,
        device: torch.device,
    ) -> None:
        super().__init__(attempt, total_iterations(config, config.tasks))
        self.config, self.learner, self.tasks = config, learner, tasks
        self.recorder = CurveRecorder(attempt.emit, attempt.flush_seconds)
        self.inner_steps = 0
        self.kinds: set[int] = set()
        self._device = device
        self._samples_per_epoch = sum({id(t): t.samples for t in tasks}.values())
        self._models: dict[int, TaskModels] = {}
        self._batches, self._noise, perturbations = (
            torch.Generator().manual_seed(derive(config.seed, purpose))
            for purpose in ("batches", "noise", "perturbations")
        )
        seed = derive(config.seed, "starts")
        self.replay = ExperienceReplay(_replay_config(config), self._fresh, seed)
        self.outer_optimizer: OuterOptimizer = self._build_outer_optimizer(perturbations)
        self._bad = 0  # estimates in a row that were not finite
        self._reported_step = 0

    def state_dict(self) -> checkpoint.Tree:
        return {
            "kind": "meta_train",
            "iteration": self.step,
            "inner_steps": self.inner_steps,
            "samples": self.samples,
            "kinds": sorted(self.kinds),
            "networks": {n: dict(net.state_dict()) for n, net in self.learner.networks.items()},
            **self.outer_optimizer.state_dict(),
            "batches": self._batches.get_state(),
            "noise": self._noise.get_state(),
            "rng": checkpoint.rng_state(),
            "clock": self.clock.state_dict(),
            **self.recorder.state_dict(),
            "bad": self._bad,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = self._reported_step = int(state["iteration"])
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
        self.recorder.load_state_dict(state)
        self._bad = int(state["bad"])

    def _step(self) -> None:
        with self.clock.section("training"):
            result = self.outer_optimizer.step(self.learner, self.step)
        self._bad = 0 if result.finite else self._bad + 1
        self.step += 1
        self.inner_steps += result.steps
        self._record(result)

    def _epoch(self) -> float:
        return self.samples / self._samples_per_epoch

    def _over(self) -> str | None:
        return "budget" if self.total_steps is not None and self.step >= self.total_steps else None

    def _diverged(self) -> str | None:
        return f"no finite meta-gradient at {self.step}" if self._bad >= _MOST_BAD else None

    def _flush(self) -> None:
        # Iterations may have no points; their progress is reported all the same.
        moved, self._reported_step = self.step != self._reported_step, self.step
        self.recorder.flush(self.progress, force=moved)

    def _unroll(self, start: InnerState) -> UnrollResult:
        models = self._models_of(start.task)
        self.kinds |= {s.kind for s in models.segments}
        batches = [models.task.batch(self._batches) for _ in range(self.config.unroll + 1)]
        self.samples += (len(batches) - 1) * models.task.batch_size
        return self.learner.unroll(models, start, batches, self._noise)

    def _record(self, result: OuterStep) -> None:
        if not result.losses:
            return
        values = {_CURVES[name]: float(loss) for name, loss in result.losses.items()}
        for name, value in values.items():
            self._summarize(name, value)
        values.update({name: float(value) for name, value in result.stats.items()})
        self.recorder.add(self._position(), values)

    def _summarize(self, name: str, value: float) -> None:
        """Take a meta-loss into its summary, smoothed, unless it is not finite."""
        if not math.isfinite(value):
            return
        summary = self.recorder.summary().get(name)
        if summary is not None:
            last = summary["last"]
            value = last + (1 - self.outer_optimizer.smoothing) * (value - last)
        self.recorder.summarize(name, value, self.step)

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
    # Trajectories of evolution strategies are long anyway; at their horizon they must end.
    if isinstance(config.estimator, PES):
        return config.replay.model_copy(update={"keep": 0.0})
    return config.replay
