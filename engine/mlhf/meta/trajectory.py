"""The inner training that is unrolled: where it stands, and a task's networks for it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.ggn import GGN
from mlhf.curvature.losses import resolve_loss
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.meta.tasks import Task
from mlhf.optimizers.learned.kinds import Segment, by_kind


@dataclass(frozen=True)
class Point:
    """Where an inner training stands. Never changed in place.

    Attributes:
        task: Index of the task.
        theta: The parameters, flat, kinds together (``by_kind``).
        buffers: The network's buffers by name (running statistics).
        steps: How many inner steps led here from the initialisation, over all restarts.
        memory: The learned optimizer's state; empty after a restart.
    """

    task: int
    theta: Tensor
    buffers: Mapping[str, Tensor]
    steps: int = 0
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def restart(self) -> "Point":
        """Return the same place without what the optimizer remembered."""
        return replace(self, memory={})

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "buffers": dict(self.buffers), "memory": dict(self.memory)}

    @staticmethod
    def of_state(state: Mapping[str, Any], device: torch.device) -> "Point":
        """Return the point that ``state_dict`` described."""
        moved = {
            name: {k: v.to(device) for k, v in state[name].items()}
            for name in ("buffers", "memory")
        }
        return Point(int(state["task"]), state["theta"].to(device), moved["buffers"],
                     int(state["steps"]), moved["memory"])  # fmt: skip


class Bench:
    """A task's network, once per step of an unroll: each step's graph needs its own leaves.

    Args:
        task: The task.
        index: Its number.
        copies: Networks; one more than the steps of an unroll.
    """

    def __init__(self, task: Task, index: int, copies: int) -> None:
        self.task = task
        self.index = index
        self._models = [copy.deepcopy(task.model(0)).train() for _ in range(copies)]
        self._parameters = [by_kind(m)[0] for m in self._models]
        self.segments: list[Segment] = by_kind(self._models[0])[1]

    def fresh(self, seed: int) -> Point:
        """Return a new initialisation."""
        model = self.task.model(seed)
        theta = flatten([p.detach() for p in by_kind(model)[0]])
        return Point(self.index, theta, {k: v.clone() for k, v in model.named_buffers()})

    def place(self, slot: int, theta: Tensor) -> None:
        """Let a network have these parameters (it shares their memory)."""
        for p, part in zip(self._parameters[slot], unflatten(theta, self._parameters[slot]), strict=True):  # noqa: E501  # fmt: skip
            p.data = part

    def put_buffers(self, slot: int, buffers: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, buffer in self._models[slot].named_buffers():
                buffer.copy_(buffers[name])

    def buffers(self, slot: int) -> dict[str, Tensor]:
        return dict(self._models[slot].named_buffers())

    def model(self, slot: int) -> nn.Module:
        return self._models[slot]

    @staticmethod
    def parameters_of(model: nn.Module) -> list[nn.Parameter]:
        """Return a network's parameters in the order of ``Point.theta``."""
        return by_kind(model)[0]

    def curvature(self, slot: int, x: Tensor, y: Tensor) -> GGN:
        """Return loss, gradient and products of a network on a batch."""
        return GGN(self._models[slot], self.task.loss, x, y, self._parameters[slot])

    def gradient(self, slot: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and flat gradient alone."""
        with torch.enable_grad():
            z = self._models[slot](x)
        at = resolve_loss(self.task.loss)(z, y)
        parts = torch.autograd.grad(
            z, self._parameters[slot], at.gradient, allow_unused=True, materialize_grads=True
        )
        return at.value, flatten(parts)

    def split(self, vector: Tensor) -> list[Tensor]:
        return unflatten(vector, self._parameters[0])
