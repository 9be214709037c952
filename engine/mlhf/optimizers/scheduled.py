"""An optimizer whose learning rate follows a schedule."""

from dataclasses import replace

from torch import Tensor

from mlhf.optimizers.protocol import (
    Averaging,
    Optimizer,
    Rated,
    State,
    StepResult,
)
from mlhf.optimizers.schedules import Schedule
from mlhf.optimizers.state import check_state


class Scheduled:
    """Sets the inner optimizer's rate before each step, and reports it as ``learning_rate``.

    The schedule counts all steps of the run, those too that are skipped for not being finite.

    Args:
        inner: The optimizer; its present rate is the one that the schedule scales.
        schedule: Gives the factor of the rate at each step.
        total_steps: How many steps the run has, where the schedule needs it.
    """

    def __init__(self, inner: Rated, schedule: Schedule, total_steps: int | None) -> None:
        self.inner = inner
        self._schedule = schedule
        self._total_steps = total_steps
        self._base_lr = inner.lr
        self._steps = 0

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        self.inner.lr = self._base_lr * self._schedule.factor(self._steps, self._total_steps)
        result = self.inner.step(x, y)
        self._steps += 1
        return replace(result, stats={**result.stats, "learning_rate": self.inner.lr})

    def state_dict(self) -> State:
        return {"steps": self._steps, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        check_state(self.inner, state, ("steps", "inner"))
        self._steps = int(state["steps"])
        self.inner.load_state_dict(state["inner"])


class _ScheduledAveraging(Scheduled):
    """The same for an averaging optimizer: it is one too."""

    def eval_mode(self) -> None:
        assert isinstance(self.inner, Averaging)
        self.inner.eval_mode()

    def train_mode(self) -> None:
        assert isinstance(self.inner, Averaging)
        self.inner.train_mode()


def scheduled(inner: Rated, schedule: Schedule, total_steps: int | None = None) -> Optimizer:
    """Return the optimizer with its rate under a schedule; one that averages still does."""
    wrapper = _ScheduledAveraging if isinstance(inner, Averaging) else Scheduled
    return wrapper(inner, schedule, total_steps)
