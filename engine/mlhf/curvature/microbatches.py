"""A batch taken in parts: micro-batches, and curvature on a sub-batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import select_parameters
from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.ggn import GGN
from mlhf.curvature.protocol import Curvature, CurvatureFactory, Loss
from mlhf.curvature.symmetric import symmetric


@dataclass(frozen=True)
class Microbatch:
    """Some samples of a batch.

    Attributes:
        start: Index of the first; ``stop`` is one beyond the last.
        weight: In the mean that the loss and its gradient are.
        curvature_weight: In the mean that the matrix is; 0 for a part outside it.
    """

    start: int
    stop: int
    weight: float
    curvature_weight: float


def split_batch(samples: int, size: int | None, curvature_samples: int | None) -> list[Microbatch]:
    """Cut a batch into parts of at most ``size``, none of them across the sub-batch's end."""
    if size is not None and size < 1:
        raise ValueError("a micro-batch has at least 1 sample")
    if curvature_samples is not None and curvature_samples < 1:
        raise ValueError("the curvature needs at least 1 sample")
    within = samples if curvature_samples is None else min(curvature_samples, samples)
    parts = []
    for first, end in ((0, within), (within, samples)):
        step = max(end - first, 1) if size is None else size
        for start in range(first, end, step):
            stop = min(start + step, end)
            curved = (stop - start) / within if end == within else 0.0
            parts.append(Microbatch(start, stop, (stop - start) / samples, curved))
    return parts


class MicrobatchCurvature:
    """The loss, gradient and curvature matrix of a batch, computed part by part.

    For a loss that is a mean over samples, loss, gradient and products equal those of the
    whole batch. Two things are other functions when a batch is cut. Batch norm in train
    mode normalises each part by the part's own statistics (and moves its running ones once
    per part): the result is exactly that of the mean of the parts' losses, not of the whole
    batch's loss. Dropout draws a mask for each part, other draws than the whole batch's.

    With ``curvature_samples`` the matrix is that of the first samples alone (shuffle a batch
    that is sorted); the gradient is still the whole batch's, and costs no extra pass.

    Args:
        model: As for ``curvature``.
        loss: As for ``curvature``, a mean over samples.
        x: The input, a tensor or a structure of tensors with samples along dimension 0.
        y: The target, likewise.
        parameters: θ, by default all that require a gradient.
        autocast: As for ``curvature``.
        size: Samples in a part, by default as many as there are.
        curvature_samples: How many samples the matrix is taken over, by default all.
        keep: Whether the parts' graphs are kept. That takes the memory of the whole batch.
            Otherwise every product runs the forward passes again, each under its first
            pass's buffers and random draws, and one part's memory is enough.
        curvature: ``GGN``, ``EmpiricalFisher``, ``Hessian``, or the like.

    Attributes:
        loss: The mean loss, a scalar without graph.
        gradient: ∇θℓ, one tensor per parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        x: Any,
        y: Any,
        parameters: Sequence[Tensor] | None = None,
        *,
        autocast: torch.dtype | None = None,
        size: int | None = None,
        curvature_samples: int | None = None,
        keep: bool = True,
        curvature: CurvatureFactory = GGN,
    ) -> None:
        self.parameters = select_parameters(model, parameters)
        self._model, self._loss = model, loss
        self._curvature, self._autocast = curvature, autocast
        self._versions = [p._version for p in self.parameters]
        self._matrices: list[_Matrix] = []
        with torch.no_grad():
            self.gradient = [torch.zeros_like(p) for p in self.parameters]
        device = self.parameters[0].device
        losses: list[Tensor] = []
        for part in split_batch(count_samples(x), size, curvature_samples):
            own = take_samples(x, part), take_samples(y, part)
            again = None if keep or not part.curvature_weight else ForwardReplay(model, device)
            matrix = self._make(*own)
            losses.append(part.weight * matrix.loss)
            torch._foreach_add_(self.gradient, matrix.gradient, alpha=part.weight)
            if part.curvature_weight:
                kept = matrix if again is None else None
                self._matrices.append(_Matrix(part.curvature_weight, own, kept, again))
            del matrix  # its graph goes before the next part's comes
        self.loss = torch.stack(losses).sum()

    def product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return the matrix times v, one tensor per parameter; differentiable in v."""
        return symmetric(self._product, v)

    def quadratic(self, v: Sequence[Tensor]) -> Tensor:
        """Return vᵀ·matrix·v, a scalar without graph."""
        found: list[Tensor] = []
        for at in self._matrices:
            with self._open(at) as matrix:
                found.append(at.weight * matrix.quadratic(v))
                del matrix  # as above
        return torch.stack(found).sum()

    def _product(self, v: Sequence[Tensor]) -> list[Tensor]:
        out = [torch.zeros_like(p) for p in self.parameters]
        for at in self._matrices:
            with self._open(at) as matrix, torch.no_grad():
                torch._foreach_add_(out, matrix.product(v), alpha=at.weight)
                del matrix  # as above
        return out

    def _make(self, x: Any, y: Any) -> Curvature:
        return self._curvature(
            self._model, self._loss, x, y, self.parameters, autocast=self._autocast
        )

    @contextmanager
    def _open(self, at: "_Matrix") -> Iterator[Curvature]:
        if at.kept is not None:
            yield at.kept
        elif at.again is not None:
            if [p._version for p in self.parameters] != self._versions:
                raise CurvatureError("the parameters were changed since the gradient was taken")
            with at.again.restored_state():
                yield self._make(*at.batch)


def batch_curvature(
    model: nn.Module,
    loss: Loss,
    x: Any,
    y: Any,
    parameters: Sequence[Tensor] | None = None,
    *,
    autocast: torch.dtype | None = None,
    micro_batch: int | None = None,
    curvature_batch: int | None = None,
    curvature: CurvatureFactory = GGN,
) -> Curvature:
    """Return the batch's matrix, whole, or in parts where a size is given.

    Args:
        model: As for ``Parts``, and so what is not named here.
        loss: As for ``Parts``.
        x: The input.
        y: The target.
        parameters: θ.
        autocast: As for ``curvature``.
        micro_batch: Samples in a part; each product then runs the forward passes again.
        curvature_batch: How many samples the matrix is taken over.
        curvature: ``GGN`` or the like.
    """
    if micro_batch is None and curvature_batch is None:
        return curvature(model, loss, x, y, parameters, autocast=autocast)
    return MicrobatchCurvature(
        model,
        loss,
        x,
        y,
        parameters,
        autocast=autocast,
        size=micro_batch,
        curvature_samples=curvature_batch,
        keep=micro_batch is None,
        curvature=curvature,
    )


@dataclass(frozen=True)
class _Matrix:
    """One part's matrix: kept, or how to make it again."""

    weight: float
    batch: tuple[Any, Any]
    kept: Curvature | None
    again: ForwardReplay | None


def count_samples(x: Any) -> int:
    """Return how many samples a batch has."""
    counts = {t.shape[0] if t.ndim else 0 for t in pytree.tree_leaves(x) if isinstance(t, Tensor)}
    if len(counts) != 1:
        raise CurvatureError("a batch in parts needs inputs of equally many samples")
    return int(counts.pop())


def take_samples(batch: Any, part: Microbatch) -> Any:
    """Return some samples of a tensor, or of all tensors in a structure (as views)."""
    return pytree.tree_map(
        lambda t: t[part.start : part.stop] if isinstance(t, Tensor) else t, batch
    )
