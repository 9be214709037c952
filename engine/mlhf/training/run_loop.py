"""The loop that runs of every kind share: steps, flushes, checkpoints, and when to end."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlhf.core.events import Event, event
from mlhf.core.metrics import Summary
from mlhf.training import checkpoint
from mlhf.training.attempt import Attempt
from mlhf.training.checkpoint_writer import CheckpointWriter
from mlhf.training.recorder import CurveRecorder, Position
from mlhf.training.results import Status


@dataclass(frozen=True)
class Outcome:
    """Whether the loop is through, and why it ended."""

    status: Status
    reason: str


class RunLoop(ABC):
    """One attempt's loop. Subclasses say what a step is, and when the run is over.

    Args:
        attempt: Where to report and write, and who may stop the loop.
        total_steps: After how many steps the run ends; None if only time limits it.

    Attributes:
        step: Steps taken so far, over all attempts.
        samples: Training samples used so far, over all attempts.
        recorder: Collects the run's curves.
    """

    recorder: CurveRecorder

    def __init__(self, attempt: Attempt, total_steps: int | None) -> None:
        self.step = 0
        self.samples = 0
        self.total_steps = total_steps
        self.clock = attempt.clock
        self._should_stop = attempt.should_stop
        self._checkpoints = CheckpointWriter(attempt)

    def run(self) -> Outcome:
        """Take steps until the run ends or is interrupted; everything recorded is emitted."""
        while True:
            if self._evaluation_due():
                self._evaluate()
            if diverged := self._diverged():
                self._flush()
                return Outcome("diverged", diverged)
            over = self._over()
            stop = self._should_stop()  # once: a signal may arrive between two questions
            checkpoint_due = self._checkpoints.due()
            if over or stop or checkpoint_due:
                # Points come before the checkpoint, and only a sound state is saved.
                self._flush()
                if diverged := self._diverged():
                    return Outcome("diverged", diverged)
            if over and self._evaluated():
                return Outcome("succeeded", over)
            if stop:
                self._checkpoints.write(self.step, self.state_dict)
                return Outcome("interrupted", "stopped on request")
            if over:
                self._evaluate()
                continue
            if checkpoint_due:
                self._checkpoints.write(self.step, self.state_dict)
            self._step()
            if self.recorder.due():
                self._flush()

    def finish(self) -> None:  # noqa: B027 (most kinds have nothing to do)
        """Bring the result into its final form, after the loop."""

    def totals(self) -> dict[str, float]:
        """Return how much was done, and where the seconds went.

        ``cpu_seconds`` and ``processor_share`` are of training: ``Clock`` says what they count.
        They are absent where an earlier attempt did not count them.
        """
        at = self._end()
        cpu = {
            "cpu_seconds": at.cpu_seconds,
            "processor_share": self.clock.processor_share("training"),
        }
        return {
            "steps": at.step,
            "samples": at.samples,
            "epochs": at.epoch,
            "wall_seconds": at.wall_seconds,
            **{name: value for name, value in cpu.items() if value is not None},
            "evaluation_seconds": self.clock.seconds("evaluation"),
            "checkpoint_seconds": self.clock.seconds("checkpoint"),
            "compile_seconds": self.clock.seconds("compile"),
        }

    def summary(self) -> dict[str, Summary]:
        """Return each metric's last and best value."""
        return self.recorder.summary()

    @property
    def target_at(self) -> Position | None:
        """Where the target was first reached, if it was."""
        return None

    @abstractmethod
    def state_dict(self) -> checkpoint.Tree:
        """Return all that the next step depends on. Flush before."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called."""

    @abstractmethod
    def _step(self) -> None:
        """Take one step and record it."""

    @abstractmethod
    def _epoch(self) -> float:
        """Return how many epochs have passed."""

    @abstractmethod
    def _over(self) -> str | None:
        """Return why the run is over, if it is."""

    @abstractmethod
    def _diverged(self) -> str | None:
        """Return why the run cannot go on, if it cannot."""

    def _evaluation_due(self) -> bool:
        return False

    def _evaluated(self) -> bool:
        """Return whether the present state needs no evaluation before the run may end."""
        return True

    def _evaluate(self) -> None:  # noqa: B027 (meta-training has none)
        """Evaluate the present state, unless the attempt is asked to stop meanwhile."""

    def _end(self) -> Position:
        """Return how far the run got."""
        return self._position()

    def _position(self) -> Position:
        return Position(
            self.step,
            self.samples,
            self._epoch(),
            self.clock.seconds("training"),
            self.clock.cpu_seconds("training"),
        )

    def _fraction(self, at: Position) -> float:
        """Return which fraction of the run is done, from 0 to 1."""
        return at.step / self.total_steps if self.total_steps else 0.0

    def _flush(self) -> None:
        """Emit the points so far, then the progress."""
        self.recorder.flush(self.progress)

    def progress(self) -> Event:
        """Return how far the run is: to where it diverged, if it did, as its totals have it."""
        at = self._end()
        return event(
            "progress",
            step=at.step,
            total_steps=self.total_steps,
            epoch=at.epoch,
            samples=at.samples,
            fraction=self._fraction(at),
            wall_seconds=at.wall_seconds,
            cpu_seconds=at.cpu_seconds,
            processor_share=self.clock.processor_share("training"),
        )
