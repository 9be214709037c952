"""Curvature of a batch computed in microbatches, or on a part of the batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import Unchanged, select_parameters
from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.ggn import GGN
from mlhf.curvature.protocol import Curvature, CurvatureFactory, Loss
from mlhf.curvature.sample_weights import part_weights
from mlhf.curvature.symmetric import symmetric


@dataclass(frozen=True)
class Microbatch:
    """A range of a batch's samples.

    Attributes:
        start: Index of the first sample.
        stop: One beyond the index of the last.
        weight: Its weight in the mean loss and gradient.
        curvature_weight: Its weight in the mean matrix; 0 if it is not part of that.
    """

    start: int
    stop: int
    weight: float
    curvature_weight: float


def split_batch(samples: int, size: int | None, curvature_samples: int | None) -> list[Microbatch]:
    """Cut a batch into microbatches.

    Args:
        samples: The number of samples of the batch.
        size: The most samples in a microbatch; None for no limit.
        curvature_samples: The matrix is that of the first so many samples; no microbatch
            lies across the end of those. None for all.

    Raises:
        ValueError: for a size or number of samples below 1.
    """
    if size is not None and size < 1:
        raise ValueError("a micro-batch has at least 1 sample")
    if curvature_samples is not None and curvature_samples < 1:
        raise ValueError("the curvature needs at least 1 sample")
    within = samples if curvature_samples is None else min(curvature_samples, samples)
    microbatches = []
    for first, end in ((0, within), (within, samples)):
        step = max(end - first, 1) if size is None else size
        for start in range(first, end, step):
            stop = min(start + step, end)
            curved = (stop - start) / within if end == within else 0.0
            microbatches.append(Microbatch(start, stop, (stop - start) / samples, curved))
    return microbatches


def weighted(
    microbatches: Sequence[Microbatch], loss: Loss, first: Curvature, y: Any
) -> list[Microbatch]:
    """Return the microbatches with their weights in the loss of the whole batch.

    Args:
        microbatches: As ``split_batch`` returns them.
        loss: As for ``GGN``.
        first: The first one's curvature; one without ``output`` is left as it is.
        y: The whole batch's target.

    Raises:
        CurvatureError: for a loss that is no mean or sum over samples.
    """
    if not hasattr(first, "output"):
        return list(microbatches)
    parts = [slice(m.start, m.stop) for m in microbatches]
    weights = part_weights(loss, first.output, y, parts)
    if weights == [m.weight for m in microbatches]:
        return list(microbatches)
    curved = [w for w, m in zip(weights, microbatches, strict=True) if m.curvature_weight]
    is_mean = abs(sum(weights) - 1) < 1e-3
    factor = 0.0
    if any(curved):  # else all of them is masked
        within = sum(m.stop - m.start for m in microbatches if m.curvature_weight)
        factor = 1 / sum(curved) if is_mean else microbatches[-1].stop / within
    return [
        replace(m, weight=w, curvature_weight=w * factor if m.curvature_weight else 0.0)
        for w, m in zip(weights, microbatches, strict=True)
    ]


class MicrobatchCurvature:
    """The loss, gradient and curvature matrix of a batch, computed in microbatches.

    For a loss that is a mean or sum over samples, weighted (as by class weights) or masked (as
    by ``ignore_index``), loss, gradient and products equal those of the whole batch
    (``sample_weights.py``); others are refused.

    Two layers compute something else when a batch is cut. Batch norm in train mode normalises
    each microbatch by its own statistics, and updates the running ones once per microbatch:
    loss and products are those of the mean of the microbatches' losses, not of the whole
    batch's loss. Dropout draws a mask for each microbatch, other draws than for the whole batch.

    With ``curvature_samples`` the matrix is that of the first samples only (so shuffle a
    batch that is sorted). The gradient is still that of the whole batch, at no extra pass.

    Args:
        model: As for ``curvature``.
        loss: As for ``curvature``, a mean or sum over samples.
        x: The input, a tensor or a structure of tensors with samples along dimension 0.
        y: The target, likewise.
        parameters: θ, by default all that require a gradient.
        autocast: As for ``curvature``.
        size: The most samples in a microbatch; by default all.
        curvature_samples: How many samples the matrix is taken over; by default all.
        keep: Whether the microbatches' graphs are kept, which takes the memory of the whole
            batch. Otherwise every product runs the forward passes again, with the same RNG
            state, buffers and modes as at first, in the memory of one microbatch.
        curvature: ``GGN``, ``EmpiricalFisher``, ``Hessian``, or the like.

    Attributes:
        loss: The mean loss, a scalar without graph.
        gradient: ∇θℓ, one tensor like each parameter.
        microbatches: How the batch was cut, with weights.

    Raises:
        CurvatureError: as ``curvature`` does; for a loss that is no mean or sum over samples;
            where inputs differ in their number of samples;
            by products, where a parameter has changed and no graphs are kept.
        ValueError: for sizes below 1.
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
        self._unchanged = Unchanged(self.parameters)
        self._matrices: list[_Matrix] = []
        with torch.no_grad():
            self.gradient = [torch.zeros_like(p) for p in self.parameters]
        device = self.parameters[0].device
        losses: list[Tensor] = []
        self.microbatches = split_batch(count_samples(x), size, curvature_samples)
        for k in range(len(self.microbatches)):
            micro = self.microbatches[k]
            batch = take_samples(x, micro), take_samples(y, micro)
            replay = None if keep or not micro.curvature_weight else ForwardReplay(model, device)
            matrix = self._make(*batch)
            if k == 0 and len(self.microbatches) > 1:
                self.microbatches = weighted(self.microbatches, loss, matrix, y)
                micro = self.microbatches[0]
            if micro.weight:
                losses.append(micro.weight * matrix.loss)
                torch._foreach_add_(self.gradient, matrix.gradient, alpha=micro.weight)
            if micro.curvature_weight:
                kept = matrix if replay is None else None
                self._matrices.append(_Matrix(micro.curvature_weight, batch, kept, replay))
            del matrix  # frees its graph before the next one is made
        if not losses:  # all samples are masked: the mean over nothing, as for a whole batch
            losses.append(self.gradient[0].new_tensor(torch.nan))
        self.loss = torch.stack(losses).sum()

    def product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return the matrix times v, one tensor like each parameter; differentiable in v."""
        return symmetric(self._product, v)

    def quadratic(self, v: Sequence[Tensor]) -> Tensor:
        """Return vᵀ·matrix·v, a scalar without graph."""
        found: list[Tensor] = []
        for at in self._matrices:
            with self._open(at) as matrix:
                found.append(at.weight * matrix.quadratic(v))
                del matrix  # as above
        return torch.stack(found).sum() if found else self.loss.new_zeros(())

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
        elif at.replay is not None:
            self._unchanged.check()
            with at.replay.restored_state():
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
    """Return a batch's curvature: as a whole, or in microbatches where a size is given.

    Args:
        model: As for ``MicrobatchCurvature``.
        loss: As for ``MicrobatchCurvature``.
        x: The input.
        y: The target.
        parameters: θ, by default all that require a gradient.
        autocast: As for ``curvature``.
        micro_batch: The most samples in a microbatch; each product then runs the forward
            passes again.
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
    """A microbatch's matrix: the object itself, or what it takes to compute it again."""

    weight: float
    batch: tuple[Any, Any]
    kept: Curvature | None
    replay: ForwardReplay | None


def count_samples(x: Any) -> int:
    """Return how many samples a batch (a tensor or pytree of tensors) has.

    Raises:
        CurvatureError: where its tensors differ in it.
    """
    counts = {t.shape[0] if t.ndim else 0 for t in pytree.tree_leaves(x) if isinstance(t, Tensor)}
    if len(counts) != 1:
        raise CurvatureError("microbatches need inputs of equally many samples")
    return int(counts.pop())


def take_samples(batch: Any, micro: Microbatch) -> Any:
    """Return a microbatch of a tensor, or of all tensors in a pytree, as views."""
    return pytree.tree_map(
        lambda t: t[micro.start : micro.stop] if isinstance(t, Tensor) else t, batch
    )
