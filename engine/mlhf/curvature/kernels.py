"""Which of torch's kernels a forward pass may run, by what is to be differentiated."""

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
    """

    recurrent: bool
    gated: bool

    @classmethod
    def of(cls, model: nn.Module) -> "Kernels":
        layers = [type(m) for m in model.modules() if isinstance(m, nn.RNNBase)]
        return cls(bool(layers), any(issubclass(each, nn.GRU) for each in layers))

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
        return self.twice() if traced or device.type != "cpu" else NOTHING

    def of_pass(self, device: torch.device) -> AbstractContextManager[Any]:
        """As ``with_tangents``, and run our kernels in place of torch's: for a forward pass."""
        allowed = self.with_tangents(device)
        return together(allowed, OwnGRU()) if self.gated and device.type == "cpu" else allowed
