"""Running a forward pass again under the circumstances of its first time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ForwardReplay:
    """Make one before a forward pass; that pass can then be run again.

    Args:
        model: The model: its buffers and its mode are part of the circumstances.
        device: Where its random draws are made, beside the CPU.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._cuda = device if device.type == "cuda" else None
        self._draws = self._random_state()
        self._buffers = [b.clone() for b in model.buffers()]
        self._modes = [m.training for m in model.modules()]

    @contextmanager
    def restored_state(self) -> Iterator[None]:
        """Set buffers, modes and random state back; afterwards all are as they were.

        The model's own buffers are put aside, not written to: graphs that saved them live on.
        """
        draws, modes = self._random_state(), [m.training for m in self._model.modules()]
        own = [(m, name, b) for m in self._model.modules() for name, b in m._buffers.items()]
        at_first = {
            id(b): value.clone()
            for b, value in zip(self._model.buffers(), self._buffers, strict=True)
        }
        self._set_random_state(self._draws)
        self._set_modes(self._modes)
        for module, name, buffer in own:
            if buffer is not None:
                module._buffers[name] = at_first[id(buffer)]
        try:
            yield
        finally:
            for module, name, buffer in own:
                module._buffers[name] = buffer
            self._set_modes(modes)
            self._set_random_state(draws)

    def _set_modes(self, modes: list[bool]) -> None:
        for module, mode in zip(self._model.modules(), modes, strict=True):
            module.training = mode

    def _random_state(self) -> tuple[Tensor, Tensor | None]:
        cuda = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)
        return torch.get_rng_state(), cuda

    def _set_random_state(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if self._cuda is not None and state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._cuda)
