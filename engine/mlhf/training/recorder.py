"""A run's curves: points are collected without waiting for the device, and emitted in batches."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mlhf.core.events import Event, OnEvent, event
from mlhf.core.metrics import Summary, summarize
from mlhf.optimizers.protocol import StepResult

_SUMMARIZED = (
    "batch_loss",
    "running_loss",
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "train_relative_l2",
    "test_relative_l2",
    "whole_train_loss",
    "whole_test_loss",
    "whole_train_accuracy",
    "whole_test_accuracy",
    "whole_train_relative_l2",
    "whole_test_relative_l2",
    "skipped_steps",
)

# Of heads and detection: ``test_<head>_loss``, ``test_average_precision``.
_MEASURED = ("_loss", "_accuracy", "_relative_l2", "_average_precision")

Progress = Callable[[], Event]

_MOST_PENDING = 2048  # steps whose values wait on the device


@dataclass(frozen=True)
class Position:
    """How far a run is.

    Attributes:
        step: Steps taken.
        samples: Training samples used.
        epoch: Passes over the training set.
        wall_seconds: Seconds of training, by the wall clock.
        cpu_seconds: CPU seconds of training, of all threads of the process; None where they
            were not counted from the run's beginning.
    """

    step: int
    samples: int
    epoch: float
    wall_seconds: float
    cpu_seconds: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        return asdict(self)


class CurveRecorder:
    """Collects the points of a run's curves, and emits them in batches.

    Args:
        emit: Called with every ``points`` event.
        flush_seconds: Least time between two flushes.
    """

    def __init__(self, emit: OnEvent, flush_seconds: float) -> None:
        self._emit = emit
        self._flush_seconds = flush_seconds
        self._ready: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self._summary: dict[str, Summary] = {}

    def add(self, at: Position, values: Mapping[str, float]) -> None:
        """Record a point of each of these metrics."""
        self._ready.append({**at.to_dict(), "values": dict(values)})

    def due(self) -> bool:
        """Return whether it is time to flush."""
        return time.monotonic() - self._flushed >= self._flush_seconds

    def flush(self, progress: Progress | None = None, *, force: bool = False) -> None:
        """Emit the points so far, then how far the run is with them.

        Without points ``progress`` is only emitted if ``force`` is set.
        """
        self._flushed = time.monotonic()
        if not self._ready and not force:
            return
        if self._ready:
            self._emit(event("points", points=self._ready))
            self._ready = []
        if progress is not None:
            self._emit(progress())

    def summarize(self, metric: str, value: float, step: int) -> None:
        """Take a value into its metric's summary."""
        self._summary[metric] = summarize(self._summary.get(metric), metric, value, step)

    def summary(self) -> dict[str, Summary]:
        """Return each metric's last and best value."""
        return dict(self._summary)

    def state_dict(self) -> dict[str, Any]:
        """Return the state. Flush before, so that no point is both saved and to come."""
        return {"summary": self.summary()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._summary = dict(state["summary"])


class TrainingRecorder(CurveRecorder):
    """Turns steps and evaluations into points, and finds the first bad loss.

    Of a step that was skipped, how many were so far is recorded, in place of its loss.

    Attributes:
        diverged_at: Where the loss was first not finite. Nothing is recorded after it.
    """

    def __init__(self, emit: OnEvent, flush_seconds: float) -> None:
        super().__init__(emit, flush_seconds)
        self._pending: list[tuple[Position, StepResult]] = []
        self._running = [0.0, 0]  # sum and number of batch losses since the last evaluation
        self.diverged_at: Position | None = None

    def step(self, at: Position, result: StepResult) -> None:
        """Record a step. Its values are read at the next flush."""
        self._pending.append((at, result))

    def diverged(self, at: Position) -> None:
        """Record that the run went no further: as a loss that is not finite, like any other."""
        self._read()
        if self.diverged_at is None:
            self.add(at, {"batch_loss": math.nan})
            self.diverged_at = at

    def evaluation(self, at: Position, values: Mapping[str, float]) -> dict[str, float]:
        """Record an evaluation; returns its values with the running loss among them."""
        self._read()
        values = dict(values)
        total, count = self._running
        if count:
            values["running_loss"] = total / count
        self._running = [0.0, 0]
        self.add(at, values)
        losses = [v for k, v in values.items() if k.endswith(("train_loss", "test_loss"))]
        if self.diverged_at is None and not all(map(math.isfinite, losses)):
            self.diverged_at = at
        return values

    def due(self) -> bool:
        """Return whether it is time to flush."""
        return len(self._pending) >= _MOST_PENDING or super().due()

    def flush(self, progress: Progress | None = None, *, force: bool = False) -> None:
        self._read()
        super().flush(progress, force=force)

    def state_dict(self) -> dict[str, Any]:
        return {"running": list(self._running), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        total, count = state["running"]
        self._running = [float(total), int(count)]

    def _read(self) -> None:
        """Copy the pending values to the host, each kind in one go."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        losses = torch.stack([result.loss for _, result in pending]).tolist()
        taken = [result for _, result in pending if result.skipped is None]
        columns: dict[str, Iterator[float]] = {}
        # Steps may change their kind, and then tell of other things.
        for name in dict.fromkeys(name for result in taken for name in result.stats):
            values = [result.stats[name] for result in taken if name in result.stats]
            tensors = [v for v in values if isinstance(v, Tensor)]
            columns[name] = iter(
                torch.stack(tensors).tolist()
                if len(tensors) == len(values)
                else [float(v) for v in values]
            )
        for i, (at, result) in enumerate(pending):
            if self.diverged_at is not None:
                return
            if result.skipped is not None:
                self.add(at, {"skipped_steps": float(result.skipped_steps)})
                continue
            stats = {name: next(columns[name]) for name in result.stats}
            self.add(at, {"batch_loss": losses[i], **stats})
            self._running[0] += losses[i]
            self._running[1] += 1
            if not math.isfinite(losses[i]):
                self.diverged_at = at

    def add(self, at: Position, values: Mapping[str, float]) -> None:
        super().add(at, values)
        for name, value in values.items():
            if name in _SUMMARIZED or name.endswith(_MEASURED):
                self.summarize(name, value, at.step)
