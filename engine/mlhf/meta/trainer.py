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
from mlhf.meta.config import (
    PES,
    MetaTrainConfig,
    Search,
    total_iterations,
)
from mlhf.meta.descent import Descent
from mlhf.meta.estimators import BackpropagationThroughTime, GradientEstimator
from mlhf.meta.learned import Learned, Unrolled
from mlhf.meta.method import Advance, Method
from mlhf.meta.pes import PersistentEvolution, Rewind
from mlhf.meta.replay import Starts
from mlhf.meta.search import CoordinateSearch
from mlhf.meta.tasks import Task
from mlhf.meta.trajectory import Bench, Point
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
        learned: Learned,
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
        self.config, self.learned, self.tasks = config, learned, tasks
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
        self._benches: dict[int, Bench] = {}
        self._batches, self._noise, perturbations = (
            torch.Generator().manual_seed(derive(config.seed, purpose))
            for purpose in ("batches", "noise", "perturbations")
        )
        self.starts = Starts(_replay(config), self._fresh, derive(config.seed, "starts"))
        self.method: Method = self._method(perturbations)
        self.total = total_iterations(config, config.tasks)
        self._pending: list[dict[str, Any]] = []
        self._summary: dict[str, Summary] = {}
        self._bad = 0
        self._told = 0

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
            "networks": {n: dict(net.state_dict()) for n, net in self.learned.networks.items()},
            **self.method.state_dict(),
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
        for name, net in self.learned.networks.items():
            net.load_state_dict(state["networks"][name])
        self.method.load_state_dict(state, self._device)
        self._batches.set_state(state["batches"])
        self._noise.set_state(state["noise"])
        checkpoint.set_rng_state(state["rng"])
        self.clock.load_state_dict(state["clock"])
        self._summary = dict(state["summary"])
        self._bad = int(state["bad"])
        self._told = self.iteration

    def _step(self) -> None:
        with self.clock.section("training"):
            found = self.method.advance(self.learned, self.iteration)
        self._bad = 0 if found.finite else self._bad + 1
        self.iteration += 1
        self.inner_steps += found.steps
        self._record(found)

    def _unroll(self, start: Point) -> Unrolled:
        bench = self._bench(start.task)
        self.kinds |= {s.kind for s in bench.segments}
        batches = [bench.task.batch(self._batches) for _ in range(self.config.unroll + 1)]
        self.samples += (len(batches) - 1) * bench.task.batch_size
        return self.learned.unroll(bench, start, batches, self._noise)

    def _record(self, found: Advance) -> None:
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
            value = last + (1 - self.method.smoothing) * (value - last)
        self._summary[name] = summarize(before, name, value, self.iteration)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if self._told == self.iteration:
            return
        self._told = self.iteration
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

    def _bench(self, index: int) -> Bench:
        if index not in self._benches:
            copies = self.config.unroll + 1 if self.learned.keeps_graphs else 1
            self._benches[index] = Bench(self.tasks[index], index, copies)
        return self._benches[index]

    def _fresh(self, random: Any) -> Point:
        index = random.randrange(len(self.tasks))
        return self._bench(index).fresh(random.getrandbits(48))

    def _start(self, task: int, seed: int) -> Point:
        return self._bench(task).fresh(seed)

    def _method(self, perturbations: torch.Generator) -> Method:
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
        estimator: GradientEstimator = BackpropagationThroughTime(self.starts)
        if isinstance(chosen, PES):
            estimator = PersistentEvolution(
                self.starts,
                pairs=chosen.pairs,
                sigma=chosen.sigma,
                horizon=chosen.horizon,
                random=perturbations,
                rewind=Rewind(self._batches, self._noise),
            )
        return Descent(self.config, self.learned, estimator, self._unroll)


def _replay(config: MetaTrainConfig) -> Any:
    # Evolution's trajectories are long by themselves: at their horizon they do end.
    if isinstance(config.estimator, PES):
        return config.replay.model_copy(update={"keep": 0.0})
    return config.replay
