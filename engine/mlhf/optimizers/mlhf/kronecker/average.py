"""The running average of the weights over a constant fraction of the steps so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.curvature.vectors import upcast
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

    @property
    def in_model(self) -> bool:
        """Whether θ̄ is in the model: between ``swap_in`` and ``swap_out``."""
        return self._current is not None

    @property
    def mean(self) -> list[Tensor] | None:
        """θ̄, to be moved in place by ``weight``; None before the first step."""
        return self._mean

    def weight(self, steps: int) -> float:
        """Return by what part of its distance to θ the mean moves after so many steps."""
        return 1 / (1 + self._fraction * steps)

    @torch.no_grad()
    def add(self, steps: int) -> None:
        """Include θ after the given number of steps, counted from 1."""
        # In the parameters' own precision, where that is low, the mean would stop moving.
        theta = [upcast(p) for p in self._parameters]
        if self._mean is None:
            self._mean = [t.detach().clone() for t in theta]
        else:
            torch._foreach_lerp_(self._mean, theta, self.weight(steps))

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
        return {"mean": self._mean, "current": self._current}

    def load_state_dict(self, state: State) -> None:
        """Restore what ``state_dict`` returned; saved with θ̄ in the model, θ̄ belongs there."""
        self._mean = self._restored(state["mean"])
        current = state.get("current")
        self._current = None if current is None else self._restored(current)

    def _restored(self, saved: Sequence[Tensor] | None) -> list[Tensor] | None:
        if saved is None:
            return None
        return [t.to(upcast(p), copy=True) for t, p in zip(saved, self._parameters, strict=True)]
