"""The training loop of one network: its steps, its evaluations, and when to end."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from mlhf.core.budget import total_steps
from mlhf.core.errors import DivergedError
from mlhf.core.metrics import reaches
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.protocol import Optimizer
from mlhf.training import checkpoint
from mlhf.training.attempt import Attempt
from mlhf.training.averaging import averaged, keep_average
from mlhf.training.config import Target, TrainConfig
from mlhf.training.evaluation import Samples, evaluate
from mlhf.training.measured_samples import MeasuredSamples
from mlhf.training.order import BatchOrder
from mlhf.training.recorder import Position, TrainingRecorder
from mlhf.training.run_loop import Outcome, RunLoop

# Keeps a rounding error from delaying an evaluation by a step.
_EPSILON = 1e-9


class Trainer(RunLoop):
    """Trains a network: steps, evaluations, and the target.

    Args:
        config: The run.
        model: On its device, with the parameters the optimizer updates.
        data: The data set.
        loss: Of the run.
        optimizer: Takes the steps.
        attempt: Where to report and write, and who may stop the run.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        data: Samples,
        loss: Loss,
        optimizer: Optimizer,
        attempt: Attempt,
    ) -> None:
        samples = data.size("train")
        super().__init__(attempt, total_steps(config.budget, samples, config.batch_size))
        self.config = config
        self.model = model
        self.data = data
        self.loss = loss
        self.optimizer = optimizer
        self.order = BatchOrder(samples, config.batch_size, config.seed)
        self.recorder: TrainingRecorder = TrainingRecorder(attempt.emit, attempt.flush_seconds)
        self._device = next(model.parameters()).device
        self.measured = MeasuredSamples(config.evaluation, data)
        self._evaluated_step = -1
        self._measured_whole = False  # at that step
        self._failure: str | None = None  # why the optimizer gave up
        self._target_at: Position | None = None
        self._steps_per_evaluation = config.evaluation.every_epochs * self.order.steps_per_epoch

    def run(self) -> Outcome:
        self.model.train()
        return super().run()

    def finish(self) -> None:
        """Leave the result in the model, in evaluation mode: its last state, or its average."""
        if self.step:
            keep_average(*self._averaged())
        self.model.eval()

    @property
    def target_at(self) -> Position | None:
        return self._target_at

    def state_dict(self) -> checkpoint.Tree:
        return {
            "step": self.step,
            "samples": self.samples,
            "evaluated_step": self._evaluated_step,
            "measured_whole": self._measured_whole,
            "target_at": None if self._target_at is None else self._target_at.to_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.state_dict(),
            "clock": self.clock.state_dict(),
            "recorder": self.recorder.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])
        self.samples = int(state["samples"])
        self._evaluated_step = int(state["evaluated_step"])
        self._measured_whole = bool(state.get("measured_whole", False))
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
            x, y, samples = self._next()
            try:
                result = self.optimizer.step(x, y)
            except DivergedError as error:
                self._failure = str(error)
            self.step += 1
            self.samples += samples
            if self._failure is not None:
                self.recorder.diverged(self._position())
            else:
                self.recorder.step(self._position(), result)

    def _next(self) -> tuple[Any, Any, int]:
        """Return the next batch, and how many samples it has."""
        indices = self.order.next()
        return *self.data.batch("train", indices, self._device), len(indices)

    def _averaged(self) -> tuple[nn.Module, Optimizer, Samples, torch.device, int]:
        return self.model, self.optimizer, self.data, self._device, self.config.batch_size

    def _epoch(self) -> float:
        return self.step / self.order.steps_per_epoch

    def _end(self) -> Position:
        return self.recorder.diverged_at or self._position()

    def _flush(self) -> None:
        self._finish_steps()
        super()._flush()

    def _finish_steps(self) -> None:
        # A GPU only queues steps: waiting for them is training time.
        if self._device.type == "cuda":
            with self.clock.section("training"):
                torch.cuda.synchronize(self._device)

    def _fraction(self, at: Position) -> float:
        fractions = [super()._fraction(at)]
        if self.config.budget.wall_seconds:
            fractions.append(at.wall_seconds / self.config.budget.wall_seconds)
        return min(1.0, max(fractions))

    def _over(self) -> str | None:
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
        if self._evaluated():
            return False
        done = math.floor(self.step / self._steps_per_evaluation + _EPSILON)
        before = math.floor((self.step - 1) / self._steps_per_evaluation + _EPSILON)
        return self.step == 0 or done > before

    def _evaluated(self) -> bool:
        if self._evaluated_step != self.step:
            return False
        return self._measured_whole or not self.measured.partial or self._over() is None

    def _evaluate(self) -> None:
        self._flush()
        if self.recorder.diverged_at is not None:
            return
        target = self.config.target if self._target_at is None else None
        # At step 0 nothing is averaged yet, and every optimizer is measured at the same point.
        weights = averaged(*self._averaged()) if self.step else nullcontext()
        with self.clock.section("evaluation"), weights:
            whole = self.measured.partial and self._over() is not None
            values = self._measure(whole)
            if self.measured.partial and not whole and values and _reached(target, values):
                # The part has reached it: whether the whole set has is measured.
                whole, values = True, self._measure(True)
        if values is None:
            return
        at = self._position()
        if self._evaluated_step == self.step:  # only the whole set was missing
            values = {name: v for name, v in values.items() if name.startswith("whole_")}
        self._evaluated_step, self._measured_whole = self.step, whole
        values = self.recorder.evaluation(at, values)
        if _reached(target, values):
            self._target_at = at
        self._flush()

    def _measure(self, whole: bool) -> dict[str, float] | None:
        return evaluate(
            self.model,
            self.data,
            self.loss,
            self._device,
            batch_size=max(self.config.batch_size, 256),
            subset=self.measured.subset,
            rest=self.measured.rest if whole else None,
            should_stop=self._should_stop,
        )

    def _diverged(self) -> str | None:
        at = self.recorder.diverged_at
        if at is None:
            return None
        if self._failure is not None:
            return f"at step {at.step}: {self._failure}"
        return f"the loss was not finite at step {at.step}"


def _reached(target: Target | None, values: Mapping[str, float]) -> bool:
    """Whether a target is reached: by the whole set, where that was measured too."""
    if target is None:
        return False
    value = values.get(f"whole_{target.metric}", values.get(target.metric))
    return value is not None and reaches(target.metric, value, target.value)
