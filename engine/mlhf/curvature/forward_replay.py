"""Running a forward pass a second time with the same random draws, buffers, modes and autocast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ForwardReplay:
    """A snapshot of the RNG state, of a model's buffers and modes, and of autocast.

    Take it before a forward pass; within ``restored_state`` the pass then runs as it did:
    dropout draws the same masks, batch norm starts from the same running statistics, and
    operations have the same dtypes.

    Args:
        model: The model. Its buffers and the modes (train or eval) of its modules are kept.
        device: The device whose RNG state is kept, beside the CPU's.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._autocast = (
            device.type,
            torch.get_autocast_dtype(device.type),
            torch.is_autocast_enabled(device.type),
        )
        self._cuda = device if device.type == "cuda" else None
        self._rng_state = self._get_rng_state()
        self._buffers = [b.clone() for b in model.buffers()]
        self._modes = [m.training for m in model.modules()]

    @contextmanager
    def restored_state(self) -> Iterator[None]:
        """Restore the snapshot within the block; afterwards all is as it was before the block.

        The model's own buffers are replaced by copies, not written to: graphs that saved them
        stay valid.
        """
        rng_state = self._get_rng_state()
        modes = [m.training for m in self._model.modules()]
        buffers = [(m, name, b) for m in self._model.modules() for name, b in m._buffers.items()]
        copies = {
            id(b): value.clone()
            for b, value in zip(self._model.buffers(), self._buffers, strict=True)
        }
        self._set_rng_state(self._rng_state)
        self._set_modes(self._modes)
        for module, name, buffer in buffers:
            if buffer is not None:
                module._buffers[name] = copies[id(buffer)]
        try:
            with torch.autocast(*self._autocast):
                yield
        finally:
            for module, name, buffer in buffers:
                module._buffers[name] = buffer
            self._set_modes(modes)
            self._set_rng_state(rng_state)

    def drawn_since(self) -> bool:
        """Whether random numbers were drawn since the snapshot."""
        now = self._get_rng_state()
        return any(
            before is not None and after is not None and not torch.equal(before, after)
            for before, after in zip(self._rng_state, now, strict=True)
        )

    def _set_modes(self, modes: list[bool]) -> None:
        for module, mode in zip(self._model.modules(), modes, strict=True):
            module.training = mode

    def _get_rng_state(self) -> tuple[Tensor, Tensor | None]:
        cuda = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)
        return torch.get_rng_state(), cuda

    def _set_rng_state(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if self._cuda is not None and state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._cuda)
