"""The blocks of K-FAC's matrix: each layer's factors, their inverses, and products with them.

A block is computed from the layer's inputs a and from gradients g with respect to its outputs
(``fisher.py``). It is F ≈ A ⊗ G for linear layers (Martens & Grosse 2015) and convolutions
(Grosse & Martens 2016), and one 2×2 matrix a channel for batch norm (Osawa et al. 2019).
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlhf.optimizers.products import LARGE, product

_CHUNK = 1 << 24  # numbers of a convolution's unfolded input computed at a time, about
_BATCHED = 1 << 20  # the products of single samples are batched up to so many numbers

# A call of a layer: its input, and gradients with respect to its output.
Call = tuple[Tensor, Sequence[Tensor]]


class Layer(Protocol):
    """One block."""

    parameters: list[Tensor]

    def factors(self, calls: Sequence[Call], rows: int) -> list[Tensor]:
        """Return this batch's estimate of the block's factors.

        Args:
            calls: The layer's calls in one forward pass (several where it is shared).
            rows: Over how many rows of the network's output the loss is a mean.
        """
        ...

    def invert(self, factors: Sequence[Tensor], damping: float) -> list[Tensor]:
        """Return the inverses of the damped factors."""
        ...

    def apply(self, inverses: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[Tensor]:
        """Return the inverse block times a vector shaped like ``parameters``."""
        ...


class KroneckerLayer:
    """A linear layer or convolution: A = mean of aaᵀ, G = Σ ggᵀ / rows.

    Where a sample has T positions (of a convolution or a sequence), A is the mean over all of
    them and G the sum over each sample's, as if they were independent. A bias is a column of
    its weight, with 1 as input.

    Args:
        module: An ``nn.Linear``, ``nn.Conv1d`` or ``nn.Conv2d`` of one group.
        max_dimension: A larger factor keeps only its diagonal.
    """

    def __init__(self, module: nn.Linear | nn.Conv1d | nn.Conv2d, max_dimension: int) -> None:
        self._module = module
        self._max = max_dimension
        self.parameters: list[Tensor] = [module.weight]
        if module.bias is not None:
            self.parameters.append(module.bias)

    def factors(self, calls: Sequence[Call], rows: int) -> list[Tensor]:
        return [self.input_factor(calls), self.output_factor(calls, rows)]

    def input_factor(self, calls: Sequence[Call], stride: int = 1) -> Tensor:
        """Return A.

        Args:
            calls: As for ``factors``; gradients are not looked at.
            stride: Along each dimension of positions, every so many is used.
        """
        bias = len(self.parameters) == 2
        small = self._small_rows([x for x, _ in calls], stride, bias)
        if small is not None:
            return small.mT.mm(small).div_(len(small))
        a: Tensor | None = None
        total: Tensor | None = None  # of the inputs: the bias's column of A
        count = 0
        for x, _ in calls:
            for columns in self._inputs(x, stride):
                a = self._add_second_moment(columns, a, bias)
                if bias:
                    sums = columns.sum((0, 2))
                    total = sums if total is None else total.add_(sums)
                count += len(columns) * columns.shape[2]
        assert a is not None
        return a / count if total is None else _bordered(a, total, count)

    def output_factor(self, calls: Sequence[Call], rows: int, *, diagonal: bool = False) -> Tensor:
        """Return G, or its diagonal."""
        small = None if diagonal else self._small_rows([g for _, own in calls for g in own])
        if small is not None:
            return small.mT.mm(small).div_(rows)
        g: Tensor | None = None
        for _, gradients in calls:
            for gradient in gradients:
                g = self._add_second_moment(self._outputs(gradient), g, diagonal=diagonal)
        assert g is not None
        return g / rows

    def input_rows(self, calls: Sequence[Call], stride: int = 1) -> Tensor:
        """Return X, (m, n), with XᵀX = A; arguments as of ``input_factor``."""
        parts = [_rows(columns) for x, _ in calls for columns in self._inputs(x, stride)]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        if len(self.parameters) == 2:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        result: Tensor = rows * len(rows) ** -0.5
        return result

    def output_rows(self, calls: Sequence[Call], rows: int) -> Tensor:
        """Return X, (m, n), with XᵀX = G; arguments as of ``output_factor``."""
        found = [_rows(self._outputs(gradient)) for _, gradients in calls for gradient in gradients]
        result: Tensor = torch.cat(found) * rows**-0.5
        return result

    def invert(self, factors: Sequence[Tensor], damping: float) -> list[Tensor]:
        a, g = factors
        # Martens & Grosse's π: the damping falls on both factors by their mean eigenvalues.
        ratio = (_mean_eigenvalue(a) / _mean_eigenvalue(g)).sqrt()
        root = damping**0.5
        return [_inverse(a, root * ratio), _inverse(g, root / ratio)]

    def apply(self, inverses: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[Tensor]:
        a, g = inverses
        matrix = gradient[0].flatten(1)
        if len(gradient) == 2:
            matrix = torch.cat([matrix, gradient[1].unsqueeze(1)], 1)
        matrix = g @ matrix if g.ndim == 2 else g.unsqueeze(1) * matrix
        matrix = matrix @ a if a.ndim == 2 else matrix * a
        if len(gradient) == 1:
            return [matrix.view_as(gradient[0])]
        return [matrix[:, :-1].reshape(gradient[0].shape), matrix[:, -1]]

    def _small_rows(
        self, tensors: Sequence[Tensor], stride: int = 1, bias: bool = False
    ) -> Tensor | None:
        """Return the rows (N, D) of which a factor is the sum of outer products, if few.

        For a linear layer that was called once: then calls into torch are most of the time.

        Args:
            tensors: The inputs or gradients of the layer's calls.
            stride: As of ``input_factor``.
            bias: Whether to append a column of ones.
        """
        if len(tensors) != 1 or not isinstance(self._module, nn.Linear):
            return None
        x = self.batched(tensors[0])
        size = x.shape[-1]
        if size + bias > self._max or x.numel() * size >= LARGE:
            return None
        if x.ndim > 2:
            x = (x if stride == 1 else x[:, ::stride]).reshape(-1, size)
        return torch.cat([x, x.new_ones(len(x), 1)], 1) if bias else x

    def _add_second_moment(
        self,
        columns: Tensor,
        so_far: Tensor | None,
        bias: bool = False,
        *,
        diagonal: bool = False,
    ) -> Tensor:
        """Return ``so_far`` plus Σ ccᵀ over the columns c of (N, D, T), or plus its diagonal."""
        size = columns.shape[1]
        if diagonal or size + bias > self._max:
            new = columns.square().sum((0, 2))
            return new if so_far is None else so_far.add_(new)
        if columns.numel() * size >= LARGE:
            rows = columns.transpose(0, 1).reshape(size, -1)
            new = product(rows, rows)
            return new if so_far is None else so_far.add_(new)
        if 1 < len(columns) <= _BATCHED / size**2:
            new = torch.bmm(columns, columns.mT).sum(0)
            return new if so_far is None else so_far.add_(new)
        if so_far is None:
            so_far = columns.new_zeros(size, size)
        return so_far.addbmm_(columns, columns.mT)  # one product at a time

    def _inputs(self, x: Tensor, stride: int = 1) -> Iterator[Tensor]:
        """Yield in chunks (N, D, T) the columns that the weight (out, D) multiplies."""
        module, x = self._module, self.batched(x)
        if isinstance(module, nn.Linear):
            yield _columns(x if x.ndim < 3 else x[:, ::stride])
            return
        if isinstance(module, nn.Conv1d):
            x = x.unsqueeze(2)
        kernel, conv_stride, dilation = (
            (1,) * (2 - len(size)) + tuple(size)
            for size in (module.kernel_size, module.stride, module.dilation)
        )
        sides = _padding(module, kernel, dilation)
        if any(sides):
            x = F.pad(x, sides)
        window_stride = tuple(stride * step for step in conv_stride)
        per_sample = max(1, module.weight[0].numel() * x[0, 0].numel())
        for chunk in torch.split(x, max(1, _CHUNK // per_sample)):
            yield _windows(chunk, kernel, dilation, window_stride)

    def _outputs(self, gradient: Tensor) -> Tensor:
        gradient = self.batched(gradient)
        return _columns(gradient) if isinstance(self._module, nn.Linear) else gradient.flatten(2)

    def batched(self, t: Tensor) -> Tensor:
        """Return an input or output (N, …); a layer takes single samples too, without N."""
        alone = 1 if isinstance(self._module, nn.Linear) else 1 + len(self._module.kernel_size)
        return t.unsqueeze(0) if t.ndim == alone else t


class BatchNormLayer:
    """The exact 2×2 matrix of each channel's (γ, β), of gradients summed over positions."""

    def __init__(self, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        self._module = module
        self.parameters: list[Tensor] = [module.weight, module.bias]

    def factors(self, calls: Sequence[Call], rows: int) -> list[Tensor]:
        total: Tensor | None = None
        for x, gradients in calls:
            normal = self._normalized(x)
            for gradient in gradients:
                pair = torch.stack([_per_sample(gradient * normal), _per_sample(gradient)], -1)
                block = torch.einsum("nci,ncj->cij", pair, pair)
                total = block if total is None else total + block
        assert total is not None
        return [total / rows]

    def invert(self, factors: Sequence[Tensor], damping: float) -> list[Tensor]:
        eye = torch.eye(2, dtype=factors[0].dtype, device=factors[0].device)
        return [torch.linalg.inv(factors[0] + damping * eye).contiguous()]

    def apply(self, inverses: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[Tensor]:
        out = torch.einsum("cij,cj->ci", inverses[0], torch.stack(list(gradient), -1))
        return [out[:, 0], out[:, 1]]

    def _normalized(self, x: Tensor) -> Tensor:
        module = self._module
        if module.training or module.running_mean is None:
            return F.batch_norm(x, None, None, training=True, eps=module.eps)
        return F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)


def layers_of(model: nn.Module, max_dimension: int) -> list[tuple[nn.Module, Layer]]:
    """Return the modules that have a block and share no parameter with another, and the blocks.

    Args:
        model: The network.
        max_dimension: A larger factor keeps only its diagonal.
    """
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users[id(parameter)] = users.get(id(parameter), 0) + 1
    layers = []
    for module in model.modules():
        layer = _layer_of(module, max_dimension)
        if layer is not None and all(users[id(p)] == 1 for p in layer.parameters):
            layers.append((module, layer))
    return layers


def _layer_of(module: nn.Module, max_dimension: int) -> Layer | None:
    """Return the module's block, or None where its parameters get none.

    Exact types only: a subclass may do something else in its forward pass.
    """
    if not all(
        p is not None and p.requires_grad for p in module._parameters.values() if p is not None
    ):
        return None
    if type(module) is nn.Linear and _has_own_weight(module):
        return KroneckerLayer(module, max_dimension)
    if type(module) in (nn.Conv1d, nn.Conv2d) and _has_own_weight(module):
        assert isinstance(module, nn.Conv1d | nn.Conv2d)
        if module.groups == 1 and module.padding_mode == "zeros":
            return KroneckerLayer(module, max_dimension)
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) and _has_own_weight(module):
        assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        return BatchNormLayer(module)
    return None


def _has_own_weight(module: nn.Module) -> bool:
    """Whether the weight is a parameter of the module itself."""
    return module._parameters.get("weight") is not None


def _windows(
    x: Tensor, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Return the patches that a kernel sees of (N, C, H, W) as columns (N, D, T): ``F.unfold``.

    Their memory is laid out as (D, N, T), so that all samples' columns side by side are a view.
    """
    n, c, *sides = x.shape
    dimensions = list(zip(sides, kernel, dilation, stride, x.stride()[2:], strict=True))
    counts = [(side - d * (k - 1) - 1) // s + 1 for side, k, d, s, _ in dimensions]
    within = [d * step for _, _, d, _, step in dimensions]
    along = [s * step for _, _, _, s, step in dimensions]
    windows = x.as_strided((c, *kernel, n, *counts), (x.stride(1), *within, x.stride(0), *along))
    return windows.reshape(-1, n, counts[0] * counts[1]).transpose(0, 1)


def _padding(
    module: nn.Conv1d | nn.Conv2d, kernel: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Return the padding in ``F.pad``'s order: left, right, top, bottom."""
    if module.padding == "valid":
        return [0] * 4
    if module.padding == "same":
        both = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [side for total in reversed(both) for side in (total // 2, total - total // 2)]
    sizes = [0] * (2 - len(module.padding)) + [int(size) for size in module.padding]
    return [size for size in reversed(sizes) for _ in range(2)]


def _columns(x: Tensor) -> Tensor:
    """Return the rows of (…, D) as columns of (1, D, rows)."""
    return x.reshape(-1, x.shape[-1]).T.unsqueeze(0)


def _rows(columns: Tensor) -> Tensor:
    """Return columns (N, D, T) as rows (N · T, D)."""
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])


def _bordered(moment: Tensor, total: Tensor, count: int) -> Tensor:
    """Return the mean of [a; 1][a; 1]ᵀ, or its diagonal, from sums over the inputs a.

    The result is written once: passes over a large matrix are most of the cost of a dense
    layer's update.

    Args:
        moment: Σ aaᵀ, (D, D), or its diagonal (D,).
        total: Σ a, (D,).
        count: How many a there are.
    """
    size = len(total)
    result = total.new_empty([size + 1] * moment.ndim)
    if moment.ndim == 1:
        torch.div(moment, count, out=result[:size])
    else:
        torch.div(moment, count, out=result[:size, :size])
        result[size, :size] = result[:size, size] = total / count
    result[(size,) * moment.ndim] = 1
    return result


def _per_sample(values: Tensor) -> Tensor:
    """Sum over the positions of (N, C, …)."""
    return values.flatten(2).sum(2) if values.ndim > 2 else values


def _mean_eigenvalue(factor: Tensor) -> Tensor:
    diagonal = factor.diagonal() if factor.ndim == 2 else factor
    return diagonal.mean().clamp_min(1e-12)


def _inverse(factor: Tensor, shift: Tensor) -> Tensor:
    """Return (F + shift·I)⁻¹; a factor (n,) stands for a diagonal, and so does its inverse."""
    if factor.ndim == 1:
        return 1 / (factor + shift)
    shifted = factor.clone()
    shifted.diagonal().add_(shift)
    lower, failed = torch.linalg.cholesky_ex(shifted)
    # A check would wait for the device, so a failure shows as NaN. Contiguous, as a checkpoint
    # restores it: products depend on the layout to the last bit.
    return torch.where(failed > 0, torch.nan, torch.cholesky_inverse(lower)).contiguous()
