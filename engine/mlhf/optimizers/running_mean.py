"""Exponential moving averages that start as plain means."""

import torch
from torch import Tensor

from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored_list


def retention(decay: float, count: int) -> float:
    """Return the weight that the old mean keeps when the ``count``-th value comes in.

    The first few values are averaged with equal weight, so that no bias has to be corrected.
    """
    return min(decay, 1 - 1 / count)


class RunningMean:
    """A running mean of each tensor in a list.

    Attributes:
        values: The means; None before the first call of ``add``.
        count: How many times ``add`` was called.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.values: list[Tensor] | None = None
        self.count = 0

    def add(self, new: list[Tensor]) -> None:
        """Include new values. The means before are replaced, not changed: see ``StepGuard``."""
        self.count += 1
        if self.values is None:
            self.values = new
        elif new:
            weight = 1 - retention(self._decay, self.count)
            self.values = list(torch._foreach_lerp(self.values, new, weight))

    def state_dict(self) -> State:
        return {"count": self.count, "values": self.values}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self.count = int(state["count"])
        self.values = restored_list(state["values"], like)
