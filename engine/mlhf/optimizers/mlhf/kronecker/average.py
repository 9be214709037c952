"""The average of the weights along the way, over a constant part of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.optimizers.protocol import State


class RunningAverage:
    """θ̄ ← θ̄ + (θ − θ̄) / (1 + pk) after step k: it looks back on about pk steps.

    A window that grows with the run follows a loss that falls fast at first, and takes the
    noise from where it has become slow, as a rate that is annealed would, without knowing the
    horizon.

    Args:
        parameters: θ.
        part: p, from 0 (θ̄ = θ) to 1.
    """

    def __init__(self, parameters: Sequence[Tensor], part: float) -> None:
        if not 0 <= part <= 1:
            raise ValueError("average must be from 0 to 1")
        self._part = part
        self._parameters = list(parameters)
        self._mean: list[Tensor] | None = None
        self._away: list[Tensor] | None = None  # θ, while θ̄ is in the model

    @torch.no_grad()
    def add(self, steps: int) -> None:
        """Take in θ after so many steps, counted from 1."""
        if self._mean is None:
            self._mean = [p.detach().clone() for p in self._parameters]
        else:
            torch._foreach_lerp_(self._mean, self._parameters, 1 / (1 + self._part * steps))

    @torch.no_grad()
    def show(self) -> None:
        """Put θ̄ into the model, if it is not there."""
        if self._mean is not None and self._away is None:
            self._away = [p.detach().clone() for p in self._parameters]
            torch._foreach_copy_(self._parameters, self._mean)

    @torch.no_grad()
    def hide(self) -> None:
        """Put θ back, bit for bit."""
        if self._away is not None:
            torch._foreach_copy_(self._parameters, self._away)
            self._away = None

    def state_dict(self) -> State:
        return {"mean": self._mean}

    def load_state_dict(self, state: State) -> None:
        mean, like = state["mean"], self._parameters
        self._away = None
        self._mean = (
            None if mean is None else [t.to(p, copy=True) for t, p in zip(mean, like, strict=True)]
        )
