"""The interface of optimizers to the training loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

State = dict[str, Any]


@dataclass(frozen=True)
class StepResult:
    """The result of a step. Tensors stay on the device.

    Attributes:
        loss: Mean loss of the batch before the step, a scalar without graph.
        stats: Further scalars by name, the same names in every step that was taken.
        skipped: What was not finite, where the step was skipped for it (``StepGuard``).
        skipped_steps: How many steps were skipped so far.
    """

    loss: Tensor
    stats: Mapping[str, Tensor | float] = field(default_factory=dict)
    skipped: str | None = None
    skipped_steps: int = 0


class Optimizer(Protocol):
    """Updates a model's parameters, one batch at a time."""

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        """Take one step on the batch (x, y)."""
        ...

    def state_dict(self) -> State:
        """Return a copy of the state: dicts with string keys, lists, tensors and JSON values."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore what ``state_dict`` returned; the next step is the same bit for bit."""
        ...


@runtime_checkable
class Averaging(Protocol):
    """An optimizer whose result is an average of the weights that its steps start from.

    It starts in the training mode, and in the other one refuses steps. A state saved there is
    refused, or restores that mode. Both methods may be called repeatedly; switching back and
    forth changes no bit.
    """

    def eval_mode(self) -> None:
        """Put the weights to be evaluated and saved into the model."""
        ...

    def train_mode(self) -> None:
        """Put the weights that steps start from back into the model."""
        ...


class Rated(Optimizer, Protocol):
    """An optimizer with a learning rate that may be set between steps."""

    lr: float
