"""Rows of a Jacobian by ``torch.func``: each sample's outputs as a function of the parameters.

It costs about three gradients for any layers, and for outputs that are derivatives of a network
themselves, such as the residuals of differential equations.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlhf.curvature.forward_pass import evaluated
from mlhf.curvature.jacobian.blocks import DenseBlock, JacobianRows
from mlhf.curvature.jacobian.chunks import Chunk, Unsuitable
from mlhf.curvature.microbatches import Microbatch, take_samples
from mlhf.curvature.residuals import Residuals, SampleFunction


class FunctionalJacobian:
    """Rows by ``torch.func.vmap`` over samples.

    Args:
        model: A network whose samples do not mix, or ``Residuals``.
        parameters: θ.
    """

    factored = False

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor]) -> None:
        self._model = model
        self._parameters = list(parameters)
        names = {id(p): name for name, p in model.named_parameters()}
        self._names = [names[id(p)] for p in parameters]
        self._x: Any = None

    def forward(self, x: Any) -> Tensor:
        z = evaluated(self._model, x)
        if not isinstance(z, Tensor) or not z.ndim:
            raise Unsuitable("the network returns something else than a tensor with rows")
        self._x, self._samples = x, len(z)
        return z

    def _functions(self) -> list[SampleFunction]:
        if isinstance(self._model, Residuals):
            return self._model.sample_functions(self._x, self._model.outputs(self._x))

        def outputs(parameters: dict[str, Tensor], sample: Any) -> Tensor:
            batch = pytree.tree_map(
                lambda t: t.unsqueeze(0) if isinstance(t, Tensor) else t, sample
            )
            z = torch.func.functional_call(self._model, parameters, (batch,))
            return z.squeeze(0)  # type: ignore[no-any-return]

        return [SampleFunction(outputs, (self._x,), 1.0)]

    def chunks(self, root: Tensor, most: int) -> list[Chunk]:
        if not isinstance(self._model, Residuals):
            function = self._functions()[0]
            return self._cut(function, root, self._samples, 0, most)
        found: list[Chunk] = []
        diagonal = root.reshape(-1)
        outputs = self._model.outputs(self._x)
        names = [name for name, _ in self._model._batches(self._x)]
        start = 0
        for name, function in zip(names, self._functions(), strict=True):
            n, k = len(function.batch[0]), outputs[name]
            part = torch.diag_embed(diagonal[start : start + n * k].view(n, k) * function.scale)
            found += self._cut(function, part, n, start, most)
            start += n * k
        return found

    def _cut(
        self, function: SampleFunction, root: Tensor, n: int, offset: int, most: int
    ) -> list[Chunk]:
        k = root.shape[1]
        size = max(1, most // k)
        chunks = []
        for start in range(0, n, size):
            stop = min(start + size, n)

            def rows(start: int = start, stop: int = stop) -> JacobianRows:
                samples = Microbatch(start, stop, 1.0, 1.0)
                batch = take_samples(function.batch, samples)
                return self._rows(SampleFunction(function.function, batch, 1.0), root[start:stop])

            chunks.append(Chunk(offset + start * k, offset + stop * k, rows))
        return chunks

    def _rows(self, function: SampleFunction, root: Tensor) -> JacobianRows:
        parameters = {
            name: p.detach() for name, p in zip(self._names, self._parameters, strict=True)
        }
        single = root.shape[1:] == (1, 1)

        def of_sample(weights: Tensor, *sample: Any) -> Tensor:
            def outputs(values: dict[str, Tensor]) -> Tensor:
                return function.function(values, *sample).reshape(-1)

            if single:
                found = torch.func.grad(lambda values: (weights[0] * outputs(values)).sum())(
                    parameters
                )
                return torch.cat([found[name].reshape(-1) for name in self._names]).unsqueeze(0)
            pull = torch.func.vjp(outputs, parameters)[1]
            rows = torch.func.vmap(lambda w: pull(w)[0])(weights)
            return torch.cat([rows[name].flatten(1) for name in self._names], 1)

        with torch.no_grad():
            matrix = torch.func.vmap(of_sample)(root, *function.batch).flatten(0, 1)
        return JacobianRows([DenseBlock(self._parameters, matrix)], self._parameters)

    def clear(self) -> None:
        self._x = None
