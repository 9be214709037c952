"""An optimizer whose learning rate follows a schedule."""

from torch import Tensor

from mlhf.optimizers.protocol import (
    Averaging,
    Optimizer,
    Rated,
    State,
    StepResult,
)
from mlhf.optimizers.schedules import Schedule


class Scheduled:
    """Sets the inner optimizer's rate before each step, and tells it as ``learning_rate``.

    Args:
        inner: The optimizer; the rate it has now is the schedule's full size.
        schedule: The factor of the rate over the run.
        total_steps: How many steps the run has, where the schedule needs to know.
    """

    def __init__(self, inner: Rated, schedule: Schedule, total_steps: int | None) -> None:
        self.inner = inner
        self._schedule = schedule
        self._total_steps = total_steps
        self._full = inner.lr
        self._steps = 0

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        self.inner.lr = self._full * self._schedule.factor(self._steps, self._total_steps)
        result = self.inner.step(x, y)
        self._steps += 1
        return StepResult(result.loss, {**result.stats, "learning_rate": self.inner.lr})

    def state_dict(self) -> State:
        return {"steps": self._steps, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._steps = int(state["steps"])
        self.inner.load_state_dict(state["inner"])


class _ScheduledAveraging(Scheduled):
    """The same around an averaging optimizer, which it thereby stays."""

    def eval_mode(self) -> None:
        assert isinstance(self.inner, Averaging)
        self.inner.eval_mode()

    def train_mode(self) -> None:
        assert isinstance(self.inner, Averaging)
        self.inner.train_mode()


def scheduled(inner: Rated, schedule: Schedule, total_steps: int | None = None) -> Optimizer:
    """Return the optimizer with its rate under a schedule, averaging if it was."""
    kind = _ScheduledAveraging if isinstance(inner, Averaging) else Scheduled
    return kind(inner, schedule, total_steps)
