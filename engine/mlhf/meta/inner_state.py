"""How far an inner training is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class InnerState:
    """How far an inner training is. Never changed in place.

    Attributes:
        task: Index of the task.
        theta: The parameters, flat (n,), grouped by kind (``by_kind``).
        buffers: The network's buffers by name (running statistics).
        steps: Inner steps taken since the initialization, over all restarts.
        memory: The learned optimizer's state; empty after a restart.
    """

    task: int
    theta: Tensor
    buffers: Mapping[str, Tensor]
    steps: int = 0
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def restart(self) -> "InnerState":
        """Return the same network with the learned optimizer's state dropped."""
        return replace(self, memory={})

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "buffers": dict(self.buffers), "memory": dict(self.memory)}

    @staticmethod
    def of_state(state: Mapping[str, Any], device: torch.device) -> "InnerState":
        """Return what ``state_dict`` described."""
        buffers, memory = (
            {k: v.to(device) for k, v in state[name].items()} for name in ("buffers", "memory")
        )
        theta = state["theta"].to(device)
        return InnerState(int(state["task"]), theta, buffers, int(state["steps"]), memory)
