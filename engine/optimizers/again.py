"""The loss of a step's batch at other parameters, under the same circumstances."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Again:
    """Make one before a forward pass; it can then be run again with the same random draws.

    Args:
        model: The model, in the mode it is trained in.
        device: Where its random draws are made, beside the CPU.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._cuda = device if device.type == "cuda" else None
        self._draws = self._random_state()

    @torch.no_grad()
    def loss(self, function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Return function(model(x), y); neither buffers nor random state move by it."""
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        after = self._random_state()
        self._set_random_state(self._draws)
        try:
            return function(self._model(x), y)
        finally:
            self._set_random_state(after)
            for buffer, before in buffers:
                buffer.copy_(before)

    def _random_state(self) -> tuple[Tensor, Tensor | None]:
        cuda = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)
        return torch.get_rng_state(), cuda

    def _set_random_state(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if self._cuda is not None and state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._cuda)
