"""The weights of parts of a batch in a loss that is a weighted mean, or sum, over its samples."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.loss_object import LossObject
from mlhf.curvature.losses import IGNORED, scalar
from mlhf.curvature.protocol import Loss
from mlhf.curvature.vectors import upcast

_TOLERANCE = 1e-4  # relative: above rounding errors in float32


def part_weights(loss: Loss, z: Any, y: Any, parts: Sequence[slice]) -> list[float]:
    """Return w with ℓ(batch) = Σ_k w_k ℓ(part k), for a loss of parts' own means or sums.

    For the named losses and those with options they follow from the targets. Of a function they
    are measured: by class weights or a mask the gradient of the whole loss at a part's outputs
    is a multiple of the part's own gradient there, and that multiple is w. This takes an
    evaluation of the loss for each part, and none of the model. Waits for the device.

    Args:
        loss: As for ``GGN``.
        z: Outputs of some samples, such as the first part: weights do not depend on them.
        y: The batch's target.
        parts: The parts, which make up the batch, in order.

    Raises:
        CurvatureError: for a loss that is not such a mean or sum.
    """
    samples = parts[-1].stop
    shares = [(part.stop - part.start) / samples for part in parts]
    if loss == "cross_entropy":
        ignored = y == IGNORED
        if not bool(ignored.any()):
            return shares
        counts = [int((~ignored[part]).sum()) for part in parts]
        return [count / max(sum(counts), 1) for count in counts]
    if isinstance(loss, str):
        return shares
    if isinstance(loss, LossObject) and (known := loss.part_weights(y, parts)) is not None:
        return known
    batch = _drawn(z, samples)
    whole, whole_value = _gradient(loss, batch, y, slice(0, samples), samples)
    if not math.isfinite(whole_value):
        return shares  # nor is the step
    weights, values = [], []
    for part, share in zip(parts, shares, strict=True):
        own, value = _gradient(loss, batch, y, part, samples)
        weight = _multiple([g[part] for g in whole], own, value, share)
        weights.append(weight)
        values.append(weight * value if weight else 0.0)
    if not abs(sum(values) - whole_value) <= _TOLERANCE * (
        abs(whole_value) + sum(map(abs, values))
    ):
        raise _no_mean()
    return weights


def _multiple(whole: list[Tensor], own: list[Tensor], value: float, share: float) -> float:
    """Return w with whole = w · own; the share of samples where both are 0, or nearly so.

    A loss without a value is a mean over nothing: all of the part is masked, and w is 0.
    """
    a, b = (torch.cat([g.reshape(-1).double() for g in gs]) for gs in (whole, own))
    if not bool(a.any()) and not math.isfinite(value):
        return 0.0
    square = float(torch.dot(b, b))
    if not square:
        if bool(a.any()):
            raise _no_mean()
        return share
    weight = float(torch.dot(a, b)) / square
    if not float((a - weight * b).norm()) <= _TOLERANCE * float(a.norm()):
        raise _no_mean()
    return share if abs(weight - share) <= 1e-5 * share else weight


def _drawn(z: Any, samples: int) -> Any:
    """Return outputs like z for so many samples: of random samples in z, changed a little.

    So they are such as the model returns, and differ between parts.
    """
    outputs = [t for t in pytree.tree_leaves(z) if isinstance(t, Tensor) and t.is_floating_point()]
    sizes = {t.shape[0] if t.ndim else 0 for t in outputs}
    if len(sizes) != 1 or 0 in sizes:
        raise CurvatureError(
            "a batch can be computed in parts only where all outputs have samples along their "
            f"first dimension; they have {sorted(sizes)} there. Leave out micro_batch and "
            "curvature_batch, or let the model return outputs of each sample, not its loss"
        )
    (size,) = sizes
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(size, (samples,), generator=generator)

    def draw(t: Any) -> Any:
        if not isinstance(t, Tensor) or not t.ndim or len(t) != size:
            return t
        t = upcast(t.detach())[indices.to(t.device)]
        if not t.is_floating_point():
            return t
        return t * (1 + 0.05 * torch.randn(t.shape, generator=generator).to(t))

    return pytree.tree_map(draw, z)


def _gradient(loss: Any, z: Any, y: Any, part: slice, samples: int) -> tuple[list[Tensor], float]:
    """Return the loss of a part and its gradient at the part's outputs."""
    leaves: list[Tensor] = []

    def cut(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        t = t[part] if t.ndim and len(t) == samples else t
        if t.is_floating_point():
            leaves.append(t.clone().requires_grad_())
            return leaves[-1]
        return t

    with torch.enable_grad():
        target = pytree.tree_map(lambda t: t[part] if isinstance(t, Tensor) else t, y)
        outputs = pytree.tree_map(cut, z)
        try:
            value = scalar(loss(outputs, target))
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, CurvatureError):
                raise
            raise CurvatureError(
                "the loss fails on a part of the batch, cut along the first dimension of outputs "
                f"and targets, where it needs samples ({error})"
            ) from error
        found = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return list(found), float(value.detach())


def _no_mean() -> CurvatureError:
    return CurvatureError(
        "the loss is no (weighted) mean or sum over the batch's samples: its value or gradient for "
        "a part of the batch does not follow from that part, as where samples are compared with "
        "each other. So it cannot be computed in parts: leave out micro_batch and curvature_batch"
    )
