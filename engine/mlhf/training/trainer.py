"""The training loop proper: steps, evaluations, checkpoints, and when to end."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mlhf.core.budget import total_steps
from mlhf.core.events import OnEvent, event
from mlhf.core.metrics import reaches
from mlhf.models.loss import LossName
from mlhf.optimizers.protocol import Optimizer
from mlhf.training import checkpoint
from mlhf.training.averaging import averaged, keep_average
from mlhf.training.checkpoints import Checkpoints
from mlhf.training.clock import Clock
from mlhf.training.config import Target, TrainConfig
from mlhf.training.evaluation import Samples, evaluate
from mlhf.training.order import BatchOrder
from mlhf.training.recorder import Position, Recorder

Status = Literal["succeeded", "diverged", "interrupted"]

# Below this, the time between checkpoints counts in steps of less than one.
_EPSILON = 1e-9


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    reason: str


class Trainer:
    """One attempt at a run.

    Args:
        config: The run.
        model: On its device, with the parameters the optimizer updates.
        data: The data set.
        loss: Name of the loss.
        optimizer: Takes the steps.
        emit: Is told every event.
        run_dir: Where checkpoints go; without it, there are none.
        should_stop: Asked after every step whether to stop and be resumed later.
        checkpoint_seconds: Least time between two checkpoints; None for none on the way.
        flush_seconds: Least time between two ``points`` events.
        clock: Counts the seconds.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        data: Samples,
        loss: LossName,
        optimizer: Optimizer,
        *,
        emit: OnEvent,
        run_dir: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        checkpoint_seconds: float | None = None,
        flush_seconds: float = 0.25,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.data = data
        self.loss = loss
        self.optimizer = optimizer
        self.order = BatchOrder(data.size("train"), config.batch_size, config.seed)
        self.clock = clock or Clock()
        self.recorder = Recorder(emit, flush_seconds)
        self.step = 0
        self.samples = 0
        self.total_steps = total_steps(config.budget, data.size("train"), config.batch_size)
        self._should_stop = should_stop
        self._checkpoints = Checkpoints(run_dir, checkpoint_seconds, self.clock, emit)
        self._device = next(model.parameters()).device
        self._evaluated_step = -1
        self._target_at: Position | None = None
        self._steps_per_evaluation = config.evaluation.every_epochs * self.order.steps_per_epoch

    def run(self) -> Outcome:
        """Train until the run ends or is interrupted. Everything recorded has been emitted."""
        self.model.train()
        while True:
            if self._evaluation_due():
                self._evaluate()
            if self.recorder.diverged_at is not None:
                return self._diverged()
            reason = self._over()
            stop = self._should_stop()  # once: a signal may come between two questions
            checkpoint_due = self._checkpoints.due()
            if stop or reason or checkpoint_due:
                # The points come first, and only a sound state is saved.
                self._flush()
                if self.recorder.diverged_at is not None:
                    return self._diverged()
            if reason and self._evaluated_step == self.step:
                return Outcome("succeeded", reason)
            if stop:
                self._checkpoints.write(self.step, self.state_dict)
                return Outcome("interrupted", "stopped on request")
            if reason:
                self._evaluate()
                continue
            if checkpoint_due:
                self._checkpoints.write(self.step, self.state_dict)
            self._step()
            if self.recorder.due():
                self._flush()

    def finish(self) -> None:
        """Leave the result in the model: its last state, or its average, in evaluation mode."""
        if self.step:
            keep_average(*self._averaged())
        self.model.eval()

    def totals(self) -> dict[str, float]:
        """Return how much was done, and where the seconds went."""
        at = self.recorder.diverged_at or self._position()
        return {
            "steps": at.step,
            "samples": at.samples,
            "epochs": at.epoch,
            "wall_seconds": at.wall_seconds,
            "evaluation_seconds": self.clock.seconds("evaluation"),
            "checkpoint_seconds": self.clock.seconds("checkpoint"),
            "compile_seconds": self.clock.seconds("compile"),
        }

    @property
    def target_at(self) -> Position | None:
        """Where the target was first reached, if it was."""
        return self._target_at

    def state_dict(self) -> checkpoint.Tree:
        """Return all that the next step depends on. Flush before."""
        return {
            "step": self.step,
            "samples": self.samples,
            "evaluated_step": self._evaluated_step,
            "target_at": None if self._target_at is None else self._target_at.to_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.state_dict(),
            "clock": self.clock.state_dict(),
            "recorder": self.recorder.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called."""
        self.step = int(state["step"])
        self.samples = int(state["samples"])
        self._evaluated_step = int(state["evaluated_step"])
        target_at = state["target_at"]
        self._target_at = None if target_at is None else Position(**target_at)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.load_state_dict(state["order"])
        self.clock.load_state_dict(state["clock"])
        self.recorder.load_state_dict(state["recorder"])
        checkpoint.set_rng_state(state["rng"])

    def _step(self) -> None:
        with self.clock.section("training"):
            indices = self.order.next()
            x, y = self.data.batch("train", indices, self._device)
            result = self.optimizer.step(x, y)
            self.step += 1
            self.samples += len(indices)
            self.recorder.step(self._position(), result)

    def _averaged(self) -> tuple[nn.Module, Optimizer, Samples, torch.device, int]:
        return self.model, self.optimizer, self.data, self._device, self.config.batch_size

    def _position(self) -> Position:
        return Position(
            step=self.step,
            samples=self.samples,
            epoch=self.step / self.order.steps_per_epoch,
            wall_seconds=self.clock.seconds("training"),
        )

    def _flush(self) -> None:
        self._finish_steps()
        self.recorder.flush(
            event(
                "progress",
                step=self.step,
                total_steps=self.total_steps,
                epoch=self.step / self.order.steps_per_epoch,
                samples=self.samples,
                fraction=self._fraction(),
            )
        )

    def _finish_steps(self) -> None:
        # On an accelerator steps are only queued: what is left of them is training time.
        if self._device.type == "cuda":
            with self.clock.section("training"):
                torch.cuda.synchronize(self._device)

    def _fraction(self) -> float:
        parts = [0.0]
        if self.total_steps:
            parts.append(self.step / self.total_steps)
        if self.config.budget.wall_seconds:
            parts.append(self.clock.seconds("training") / self.config.budget.wall_seconds)
        return min(1.0, max(parts))

    def _over(self) -> str | None:
        """Return why the run is over, if it is."""
        target = self.config.target
        if target is not None and target.stop and self._target_at is not None:
            return "target"
        wall = self.config.budget.wall_seconds
        if self.total_steps is not None and self.step >= self.total_steps:
            return "budget"
        if wall is not None and self.clock.seconds("training") >= wall:
            return "budget"
        return None

    def _evaluation_due(self) -> bool:
        if self._evaluated_step == self.step:
            return False
        done = math.floor(self.step / self._steps_per_evaluation + _EPSILON)
        before = math.floor((self.step - 1) / self._steps_per_evaluation + _EPSILON)
        return self.step == 0 or done > before

    def _evaluate(self) -> None:
        """Measure the model here, unless the run is asked to stop meanwhile."""
        self._flush()
        if self.recorder.diverged_at is not None:
            return
        # At step 0 nothing is averaged yet, and every optimizer is measured at the same point.
        weights = averaged(*self._averaged()) if self.step else nullcontext()
        with self.clock.section("evaluation"), weights:
            values = evaluate(
                self.model,
                self.data,
                self.loss,
                self._device,
                batch_size=max(self.config.batch_size, 256),
                max_samples=self.config.evaluation.max_samples,
                should_stop=self._should_stop,
            )
        if values is None:
            return
        at = self._position()
        self._evaluated_step = self.step
        values = self.recorder.evaluation(at, values)
        target = self.config.target
        if self._target_at is None and target is not None and _reached(target, values):
            self._target_at = at
        self._flush()

    def _diverged(self) -> Outcome:
        self._flush()
        at = self.recorder.diverged_at
        assert at is not None
        return Outcome("diverged", f"the loss was not finite at step {at.step}")


def _reached(target: Target, values: Mapping[str, float]) -> bool:
    value = values.get(target.metric)
    return value is not None and reaches(target.metric, value, target.value)
