"""The training loop of a network that solves an equation."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlhf.core.errors import under
from mlhf.curvature.forward_pass import evaluated
from mlhf.curvature.residuals import Residuals
from mlhf.optimizers.protocol import Optimizer
from mlhf.training import checkpoint
from mlhf.training.attempt import Attempt
from mlhf.training.config import TrainConfig
from mlhf.training.pde.data import PdeData
from mlhf.training.pde.points import Batch
from mlhf.training.trainer import Trainer

_BLOCK = 4096  # points that are evaluated at a time


class PdeTrainer(Trainer):
    """Trains on residuals. Points are drawn anew every so many steps.

    Args:
        config: The run.
        model: The residuals of a network, on its device.
        data: The equation.
        optimizer: Takes the steps.
        attempt: Where to report and write, and who may stop the run.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: Residuals,
        data: PdeData,
        optimizer: Optimizer,
        attempt: Attempt,
    ) -> None:
        super().__init__(config, model, data, "mse", optimizer, attempt)
        self._residuals, self._equation = model, data
        self._dtype = next(model.parameters()).dtype
        self._held_out = self._placed(data.held_out)
        self._draw = -1
        self._points: Batch = {}
        self._hold(0)

    def state_dict(self) -> checkpoint.Tree:
        return {**super().state_dict(), "draw": self._draw}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._hold(int(state["draw"]))

    def _next(self) -> tuple[Any, Any, int]:
        every = self._equation.params.resample_every
        self._hold(self.step // every if every else 0)
        return self._points, None, self._equation.size("train")

    def _hold(self, draw: int) -> None:
        """Hold the points of a draw."""
        if draw != self._draw:
            with under("/dataset"):
                points = self._equation.draws.draw(draw)
            self._draw, self._points = draw, self._placed(points)

    def _placed(self, batch: Batch) -> Batch:
        return {
            group: tuple(t.to(self._device, self._dtype) for t in tensors)
            for group, tensors in batch.items()
        }

    def _measure(self, whole: bool) -> dict[str, float] | None:
        """Return the loss at the points of the last step and at others, and the relative error."""
        self.model.eval()
        try:
            with torch.no_grad():
                values = {
                    "train_loss": self._loss(self._points),
                    "test_loss": self._loss(self._held_out),
                    "test_relative_l2": self._error(),
                }
        finally:
            self.model.train()
        if self._should_stop():
            return None
        return {name: value for name, value in values.items() if value is not None}

    def _loss(self, batch: Batch) -> float | None:
        """Return Σ over groups of weight · mean square, None where the run is to stop."""
        total = 0.0
        for group, tensors in batch.items():
            sums = _in_blocks(tensors, partial(self._squares, group))
            count = len(tensors[0])
            total += sum(sums) / count
            if self._should_stop():
                return None
        return total

    def _squares(self, group: str, tensors: tuple[Tensor, ...]) -> float:
        """Return a group's weight · mean square, times the points."""
        z: Tensor = evaluated(self._residuals, {group: tensors})
        return z.double().square().mean().item() * len(tensors[0])

    def _error(self) -> float | None:
        """Return ‖u − solution‖ / ‖solution‖ over the points of the test."""
        test = self._equation.test
        if test is None:
            return None
        network = self._residuals.network
        size = sum(test[1].square().tolist())

        def squares(part: tuple[Tensor, ...]) -> float:
            points, known = part
            u: Tensor = evaluated(network, points.to(self._device, self._dtype))
            return (u.double().cpu().squeeze(1) - known).square().sum().item()

        error = sum(_in_blocks(test, squares))
        return math.sqrt(error / size) if size else None


def _in_blocks(
    tensors: tuple[Tensor, ...], function: Callable[[tuple[Tensor, ...]], float]
) -> list[float]:
    parts = zip(*(torch.split(t, _BLOCK) for t in tensors), strict=True)
    return [function(part) for part in parts]
