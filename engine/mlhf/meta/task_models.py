"""The networks of a task that an unroll trains."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mlhf.curvature.ggn import GGN
from mlhf.curvature.losses import resolve_loss
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.meta.inner_state import InnerState
from mlhf.meta.tasks import Task
from mlhf.optimizers.learned.kinds import Segment, by_kind


class TaskModels:
    """A task's network, once per step of an unroll: each step's graph needs its own leaves.

    A copy of the network is called a slot. Vectors are flat, (n,), in the order of
    ``InnerState.theta``.

    Args:
        task: The task.
        index: Its number.
        copies: How many copies; an unroll of k steps that keeps its graphs needs k + 1.

    Attributes:
        segments: Where in a vector which kind of parameter is.
    """

    def __init__(self, task: Task, index: int, copies: int) -> None:
        self.task = task
        self.index = index
        self._models = [copy.deepcopy(task.model(0)).train() for _ in range(copies)]
        self._parameters = [by_kind(m)[0] for m in self._models]
        self.segments: list[Segment] = by_kind(self._models[0])[1]

    def initialize(self, seed: int) -> InnerState:
        """Return a fresh initialization."""
        model = self.task.model(seed)
        theta = flatten([p.detach() for p in by_kind(model)[0]])
        return InnerState(self.index, theta, {k: v.clone() for k, v in model.named_buffers()})

    def set_parameters(self, slot: int, theta: Tensor) -> None:
        """Make ``theta`` a network's parameters; they share its memory."""
        parameters = self._parameters[slot]
        for p, values in zip(parameters, unflatten(theta, parameters), strict=True):
            p.data = values

    def set_buffers(self, slot: int, buffers: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, buffer in self._models[slot].named_buffers():
                buffer.copy_(buffers[name])

    def buffers(self, slot: int) -> dict[str, Tensor]:
        return dict(self._models[slot].named_buffers())

    def model(self, slot: int) -> nn.Module:
        return self._models[slot]

    @staticmethod
    def parameters_of(model: nn.Module) -> list[nn.Parameter]:
        """Return a network's parameters in the order of ``InnerState.theta``."""
        return by_kind(model)[0]

    def ggn(self, slot: int, x: Tensor, y: Tensor) -> GGN:
        """Return loss, gradient and Gauss-Newton products of a network on a batch."""
        return GGN(self._models[slot], self.task.loss, x, y, self._parameters[slot])

    def gradient(self, slot: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, a scalar, and its flat gradient."""
        with torch.enable_grad():
            z = self._models[slot](x)
        at = resolve_loss(self.task.loss)(z, y)
        gradients = torch.autograd.grad(
            z, self._parameters[slot], at.gradient, allow_unused=True, materialize_grads=True
        )
        return at.value, flatten(gradients)
