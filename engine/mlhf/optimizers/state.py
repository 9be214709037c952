"""Reading tensors back from a saved state."""

from collections.abc import Sequence

from torch import Tensor


def restored(saved: Tensor | None, like: Tensor) -> Tensor | None:
    """Return a copy with the device and dtype of ``like``, or None where nothing was saved."""
    return None if saved is None else saved.to(like, copy=True)


def restored_list(saved: Sequence[Tensor] | None, like: Tensor) -> list[Tensor] | None:
    """Return copies with the device and dtype of ``like``, or None where nothing was saved."""
    return None if saved is None else [t.to(like, copy=True) for t in saved]
