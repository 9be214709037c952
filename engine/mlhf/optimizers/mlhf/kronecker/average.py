"""The running average of the weights over a constant fraction of the steps so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.optimizers.protocol import State


class RunningAverage:
    """θ̄ ← θ̄ + (θ − θ̄) / (1 + pk) after step k: the average over about the last pk steps.

    The window grows with the run. It follows a loss that falls quickly at first, and averages
    noise away once progress is slow, as an annealed learning rate would, but without knowing
    how long the run will be.

    Args:
        parameters: θ.
        fraction: p, from 0 (θ̄ = θ) to 1.

    Raises:
        ValueError: where ``fraction`` is outside that range.
    """

    def __init__(self, parameters: Sequence[Tensor], fraction: float) -> None:
        if not 0 <= fraction <= 1:
            raise ValueError("average must be from 0 to 1")
        self._fraction = fraction
        self._parameters = list(parameters)
        self._mean: list[Tensor] | None = None
        self._current: list[Tensor] | None = None  # θ, while θ̄ is in the model

    @torch.no_grad()
    def add(self, steps: int) -> None:
        """Include θ after the given number of steps, counted from 1."""
        if self._mean is None:
            self._mean = [p.detach().clone() for p in self._parameters]
        else:
            torch._foreach_lerp_(self._mean, self._parameters, 1 / (1 + self._fraction * steps))

    @torch.no_grad()
    def swap_in(self) -> None:
        """Put θ̄ into the model, unless it is already there."""
        if self._mean is not None and self._current is None:
            self._current = [p.detach().clone() for p in self._parameters]
            torch._foreach_copy_(self._parameters, self._mean)

    @torch.no_grad()
    def swap_out(self) -> None:
        """Put θ back, bit for bit."""
        if self._current is not None:
            torch._foreach_copy_(self._parameters, self._current)
            self._current = None

    def state_dict(self) -> State:
        return {"mean": self._mean}

    def load_state_dict(self, state: State) -> None:
        self._current = None
        mean = state["mean"]
        self._mean = (
            None
            if mean is None
            else [t.to(p, copy=True) for t, p in zip(mean, self._parameters, strict=True)]
        )
