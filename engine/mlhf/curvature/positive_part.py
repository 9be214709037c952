"""The positive part of a loss's Hessian in the network's outputs, where that is not convex.

With H = QΛQᵀ it is Q max(Λ, 0) Qᵀ. A Gauss-Newton matrix made of it is positive semi-definite,
as those of convex losses are; so is one of H's magnitude Q|Λ|Qᵀ (saddle-free Newton: Dauphin et
al. 2014), whose steps are shorter where H is negative. What is not finite in H, as at a norm's
kink, counts as zero.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.eigh import eigh

Product = Callable[[Sequence[Tensor]], list[Tensor]]

_LARGEST = 64  # of the blocks that are computed in full, at one product a column
_LANCZOS = 16  # products, where there are no such blocks
_MEANS = {  # with weights that are not negative
    *("MeanBackward0", "MeanBackward1", "SumBackward0", "SumBackward1"),
    "MaskedFillBackward0",
}
_CONVEX = {  # in an affine function of z, the first input
    "BinaryCrossEntropyWithLogitsBackward0",
    "HuberLossBackward0",
    "MseLossBackward0",
    "SmoothL1LossBackward0",
}
_NLL = {"NllLossBackward0", "NllLoss2DBackward0"}
_SCALED = {"MulBackward0", "MulBackward1", "DivBackward0", "DivBackward1"}
_AFFINE = {  # of one input
    *("AliasBackward0", "CloneBackward0", "ExpandBackward0", "NegBackward0", "PermuteBackward0"),
    *("SelectBackward0", "SliceBackward0", "SqueezeBackward0", "SqueezeBackward1", "TBackward0"),
    *("ToCopyBackward0", "TransposeBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0"),
    "ViewBackward0",
    *_MEANS,
}
_SUMS = {"AddBackward0", "CatBackward0", "StackBackward0", "SubBackward0"}


def known_convex(value: Tensor) -> bool:
    """Whether a loss is convex in the outputs by the form of its graph; else nothing is known.

    Those are means, sums and multiples of squares, and of torch's cross-entropy, squared, Huber
    and logistic losses, in affine functions of the outputs.
    """
    try:
        return value.grad_fn is None or _convex(value.grad_fn)
    except RecursionError:
        return False


def _convex(node: Any) -> bool:
    name = node.name()
    sources = [source for source, _ in node.next_functions]
    if name in _MEANS:
        return _convex(sources[0])
    if name == "AddBackward0":
        return node._saved_alpha == 1 and all(s is None or _convex(s) for s in sources)
    if name in _SCALED and all(source is None for source in sources[1:]):
        factor = node._saved_other
        if isinstance(factor, Tensor) and (factor.ndim or factor.device.type != "cpu"):
            return False  # it would be waited for
        return bool(factor >= 0) and _convex(sources[0])
    if name == "PowBackward0":
        return bool(node._saved_exponent == 2) and _affine(sources[0])
    if name == "NegBackward0":  # as label smoothing has it, of sums of log-probabilities
        while sources[0] is not None and sources[0].name() in _MEANS:
            sources = [source for source, _ in sources[0].next_functions]
        return _log_softmax(sources[0])
    if name in _NLL:
        return _log_softmax(sources[0])
    if name in _CONVEX:
        return _affine(sources[0]) and all(s is None for s in sources[1:])
    return _affine(node)


def _log_softmax(node: Any) -> bool:
    """Whether this is the log-softmax of affine functions of outputs, or a reshape of it."""
    while node is not None and node.name() in _AFFINE - _MEANS - {"NegBackward0"}:
        node = node.next_functions[0][0]
    named = node is not None and node.name() == "LogSoftmaxBackward0"
    return named and _affine(node.next_functions[0][0])


def _affine(node: Any) -> bool:
    """Whether all from here to the outputs adds, reorders, or multiplies by constants."""
    seen: set[Any] = set()
    stack = [node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name, sources = node.name(), [source for source, _ in node.next_functions]
        constant = name in _SCALED and sum(s is not None for s in sources) == 1
        if name == "DivBackward0" and sources[0] is None:
            return False  # a constant divided by an output
        known = constant or name in _AFFINE or name in _SUMS
        if not known and name != "torch::autograd::AccumulateGrad":
            return False
        stack += sources
    return True


def positive_part(product: Product, like: Sequence[Tensor], *, magnitude: bool = False) -> Product:
    """Return the product with the positive part of a matrix H, or ``product`` where H ⪰ 0.

    Where H is block-diagonal with blocks of up to 64 (one for each element, position or sample
    of the outputs, or one in all), which is measured, the blocks are computed and their
    negative eigenvalues clipped. Of a larger matrix the most negative eigenvalues are taken
    away, as far as a few Lanczos steps find them: it may stay indefinite. Or, with
    ``magnitude``, minus the lowest is added to all. Waits for the device.

    Args:
        product: u ↦ Hu, for one tensor for each output.
        like: Tensors shaped like the outputs.
        magnitude: Whether negative eigenvalues become their magnitude instead of zero.
    """
    total = sum(t.numel() for t in like)
    if not total:
        return product

    def finite(u: Sequence[Tensor]) -> list[Tensor]:
        return [torch.nan_to_num(w, 0.0, 0.0, 0.0) for w in product(u)]

    generator = torch.Generator().manual_seed(0)
    device = like[0].device
    probe = [torch.randn(t.shape, generator=generator).to(t) for t in like]
    image = finite(probe)
    for blocks in _layouts(like):
        if total > _LARGEST * blocks:
            continue
        factors = torch.randn(blocks, 1, generator=generator).to(device)
        if blocks == 1 or _commutes(finite, probe, image, factors):
            return _clipped(product, finite, like, blocks, magnitude)
    return _deflated(product, finite, probe, magnitude)


def _layouts(like: Sequence[Tensor]) -> list[int]:
    """Return into how many blocks the outputs may fall: elements, positions, samples, one."""
    shapes = [t.shape for t in like]
    found = [like[0].numel()] if len(like) == 1 else []
    if len({s[:-1] for s in shapes}) == 1:
        found.append(prod(shapes[0][:-1]))
    if all(shapes) and len({s[0] for s in shapes}) == 1:
        found.append(shapes[0][0])
    return sorted({*found, 1}, reverse=True)


def _join(tensors: Sequence[Tensor], blocks: int) -> Tensor:
    """Return the elements as a matrix, one row a block."""
    rows = [t.reshape(blocks, -1) for t in tensors]
    wide = [t.float() if t.dtype.itemsize < 4 else t for t in rows]
    return wide[0] if len(wide) == 1 else torch.cat(wide, 1)


def _part(matrix: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    blocks = len(matrix)
    parts = torch.split_with_sizes(matrix, [t.numel() // blocks for t in like], 1)
    return [part.reshape(t.shape).to(t.dtype) for part, t in zip(parts, like, strict=True)]


def _commutes(
    product: Product, probe: Sequence[Tensor], image: Sequence[Tensor], factors: Tensor
) -> bool:
    """Whether factors, one for each block of u, do the same to Hu."""
    blocks = len(factors)
    expected = _join(image, blocks) * factors
    found = _join(product(_part(_join(probe, blocks) * factors, probe)), blocks)
    tolerance = min(1000 * max(torch.finfo(t.dtype).eps for t in probe), 0.1)
    return bool((found - expected).norm() <= tolerance * expected.norm())


def _clipped(
    product: Product, finite: Product, like: Sequence[Tensor], blocks: int, magnitude: bool
) -> Product:
    size = sum(t.numel() for t in like) // blocks
    columns = []
    for k in range(size):
        unit = _join(like, blocks).new_zeros(blocks, size)
        unit[:, k] = 1
        columns.append(_join(finite(_part(unit, like)), blocks))
    matrices = torch.stack(columns, 2)
    matrices = 0.5 * (matrices + matrices.mT)
    rounding = 16 * size * max(torch.finfo(t.dtype).eps for t in like) * matrices.abs().amax((1, 2))
    if size > 1:
        eigenvalues, vectors = eigh(matrices)
    else:
        eigenvalues, vectors = matrices[:, 0], torch.ones_like(matrices)
    lowest = eigenvalues[:, :1]
    images = product(like)
    if bool((lowest >= -rounding[:, None]).all()) and all(torch.isfinite(t).all() for t in images):
        return product
    kept = eigenvalues.abs() if magnitude else eigenvalues.clamp_min(0)
    clipped = (vectors * kept.unsqueeze(1)) @ vectors.mT

    def positive(u: Sequence[Tensor]) -> list[Tensor]:
        return _part((clipped @ _join(u, blocks).unsqueeze(2)).squeeze(2), like)

    return positive


def _deflated(
    product: Product, finite: Product, probe: Sequence[Tensor], magnitude: bool
) -> Product:
    q = _join(probe, 1)[0]
    basis = [q / q.norm()]
    images: list[Tensor] = []
    for _ in range(min(_LANCZOS, len(q))):
        image = _join(finite(_part(basis[-1][None], probe)), 1)[0]
        images.append(image)
        rest = image
        for _ in range(2):  # twice is enough
            known = torch.stack(basis)
            rest = rest - known.T @ (known @ rest)
        size = rest.norm()
        if bool(size <= 1e-6 * image.norm()):
            break
        basis.append(rest / size)
    known = torch.stack(basis[: len(images)])
    small = known @ torch.stack(images).T
    eigenvalues, vectors = eigh(0.5 * (small + small.T))
    eps = max(torch.finfo(t.dtype).eps for t in probe)
    negative = eigenvalues < -64 * eps * eigenvalues.abs().max()
    if not bool(negative.any()):
        return product if all(torch.isfinite(t).all() for t in product(probe)) else finite
    if magnitude:
        shift = -eigenvalues[0]
        return lambda u: [w + shift.to(w.dtype) * t for w, t in zip(finite(u), u, strict=True)]
    directions = vectors[:, negative].T @ known

    def positive(u: Sequence[Tensor]) -> list[Tensor]:
        along = ((directions @ _join(u, 1)[0]) * -eigenvalues[negative]) @ directions
        added = _part(along[None], probe)
        return [w + a for w, a in zip(finite(u), added, strict=True)]

    return positive
