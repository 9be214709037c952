"""Which of torch's kernels a forward pass may run, by what is to be differentiated."""

import functools
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import nn

from mlhf.curvature.gru import OwnGRU
from mlhf.curvature.switches import NOTHING, differentiable_twice, together


class Kernels(NamedTuple):
    """What layers of a model have more than one kernel.

    Attributes:
        recurrent: Whether there are recurrent layers: torch has fused ones.
        gated: Whether some are ``nn.GRU``: we have one.
        long_term: Whether some are ``nn.LSTM``: in low precision not every CPU has torch's.
        autocast: The dtype of autocast in forward passes, if it is known to be on.
    """

    recurrent: bool
    gated: bool
    long_term: bool
    autocast: torch.dtype | None

    @classmethod
    def of(cls, model: nn.Module, autocast: torch.dtype | None = None) -> "Kernels":
        layers = [type(m) for m in model.modules() if isinstance(m, nn.RNNBase)]
        gated, long_term = (
            any(issubclass(each, kind) for each in layers) for kind in (nn.GRU, nn.LSTM)
        )
        return cls(bool(layers), gated, long_term, autocast)

    def twice(self) -> AbstractContextManager[Any]:
        """Allow kernels whose backward can be differentiated."""
        return differentiable_twice(recurrent=self.recurrent)

    def with_tangents(self, device: torch.device) -> AbstractContextManager[Any]:
        """Allow kernels of whose outputs we have tangents: on a CPU all.

        To be in force wherever parts of a pass may run, also for a second time.

        Args:
            device: The parameters'.
        """
        traced = torch._C._len_torch_dispatch_stack()
        if traced or device.type != "cpu" or (self.long_term and not self._has_lstm()):
            return self.twice()
        return NOTHING

    def _has_lstm(self) -> bool:
        dtype = self.autocast or autocast_dtype()
        return dtype is None or has_lstm(dtype)

    def of_pass(self, device: torch.device) -> AbstractContextManager[Any]:
        """As ``with_tangents``, and run our kernels in place of torch's: for a forward pass."""
        allowed = self.with_tangents(device)
        return together(allowed, OwnGRU()) if self.gated and device.type == "cpu" else allowed


def working(model: nn.Module) -> AbstractContextManager[Any]:
    """Within the caller's autocast, turn off kernels that this CPU lacks."""
    dtype = autocast_dtype()
    if dtype is None or not any(isinstance(m, nn.LSTM) for m in model.modules()):
        return NOTHING
    return NOTHING if has_lstm(dtype) else differentiable_twice(recurrent=True)


def autocast_dtype() -> torch.dtype | None:
    """Return the dtype of autocast on the CPU, None where it is off."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


@functools.cache
def has_lstm(dtype: torch.dtype) -> bool:
    """Whether oneDNN has an LSTM for autocast to this dtype on this CPU.

    Where it has none (without AVX-512, say), torch fails in place of running its own.
    """
    weights = [torch.zeros(4, 1, requires_grad=True) for _ in range(2)]
    zeros = torch.zeros(1, 1, 1)
    try:
        with torch.enable_grad(), torch.autocast("cpu", dtype=dtype):
            torch.lstm(zeros, (zeros, zeros), weights, False, 1, 0.0, True, False, False)
    except RuntimeError:
        return False
    return True
