"""The dtype of forward and backward passes, as parameters name it."""

import torch


def autocast_dtype(name: str | None) -> torch.dtype | None:
    """Return the dtype named by a ``BatchedParams.autocast``; None for no autocast."""
    return None if name is None else getattr(torch, name)
