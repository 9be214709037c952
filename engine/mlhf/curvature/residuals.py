"""Residuals of a network at points, such as those of a differential equation, as a module."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.kernels import Kernels

# A function of a network u and one point (with what else belongs to it): one or more numbers.
Residual = Callable[..., Tensor]


class SampleFunction(NamedTuple):
    """Outputs that each sample of a group has by itself.

    Attributes:
        function: From parameters by name and one sample to its outputs.
        batch: The samples: tensors of n rows each, the function's further arguments.
        scale: The group's outputs are multiplied by it.
    """

    function: Callable[..., Tensor]
    batch: tuple[Any, ...]
    scale: float


class Field:
    """A network as a function of one point: u(x) is a number, or a vector (m,) of m outputs.

    Args:
        network: Takes a batch of points.
        parameters: By name, in place of the network's own.
    """

    def __init__(self, network: nn.Module, parameters: Mapping[str, Tensor] | None = None) -> None:
        self.network = network
        self._parameters = parameters

    def parameter(self, name: str, own: Tensor) -> Tensor:
        """Return what stands for the network's parameter of that name."""
        return own if self._parameters is None else self._parameters.get(name, own)

    def __call__(self, point: Tensor) -> Tensor:
        batch = point.unsqueeze(0)
        if self._parameters is None:
            z: Tensor = self.network(batch)
        else:
            z = torch.func.functional_call(self.network, dict(self._parameters), (batch,))
        return z.reshape(()) if z.numel() == 1 else z.squeeze(0)


class Residuals(nn.Module):
    """A network's residuals at a batch of points, to be made small by any optimizer.

    A residual is a function of the network u and one point, written with ``torch.func`` or with
    ``mlhf.curvature.derivatives``; u(x) is a number, or a vector (m,) where the network has m
    outputs.

        def poisson(u, x):
            return laplacian(u, x) + source(x)

        def boundary(u, x, value):
            return u(x) - value

        model = Residuals(network, {"inside": poisson, "boundary": boundary}, {"boundary": 100})
        optimizer = GaussNewton(model)
        optimizer.step({"inside": points, "boundary": (more_points, values)})

    The loss is Σ over groups of weight · mean of the residuals' squares. Its module is all that
    other optimizers need: ``MLHF(model, model.loss).step(points, None)``.

    Args:
        network: u. It must not mix the samples of a batch.
        functions: The residual, or one for each group of points, by name.
        weights: Of groups, 1 where none is given.

    Raises:
        ValueError: for a weight that is not positive, or of no group.
    """

    def __init__(
        self,
        network: nn.Module,
        functions: Residual | Mapping[str, Residual],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._kernels = Kernels.of(network)
        self.single = not isinstance(functions, Mapping)
        self.functions = dict(functions) if isinstance(functions, Mapping) else {"": functions}
        self.weights = dict.fromkeys(self.functions, 1.0) | dict(weights or {})
        for name, weight in self.weights.items():
            if name not in self.functions:
                raise ValueError(
                    f"weights has {name!r}, but the groups are {', '.join(self.functions)}"
                )
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(f"the weight of {name!r} is {weight!r}; it should be above 0")

    def forward(self, x: Any) -> Tensor:
        """Return all residuals, scaled by their group's weight: Σ squares / rows is the loss.

        Args:
            x: The points (n, d), or a tuple of them and of what else the function takes for
                each; with several groups a dict of such by name.

        Returns:
            Shape (rows,), group by group.
        """
        field = Field(self.network)
        names, found = [], []
        for name, batch in self._batches(x):
            function = self.functions[name]
            vmapped = torch.func.vmap(lambda *point, f=function: f(field, *point))
            try:
                with self._kernels.twice():
                    found.append(vmapped(*batch).reshape(-1))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                if isinstance(error, torch.OutOfMemoryError | CurvatureError):
                    raise
                raise CurvatureError(self._explained(name, batch, error)) from error
            names.append(name)
        rows = sum(len(r) for r in found)
        scaled = [self._scale(n, len(r), rows) * r for n, r in zip(names, found, strict=True)]
        return torch.cat(scaled)

    def loss(self, z: Tensor, y: Any = None) -> Tensor:
        """Return the loss of residuals z; y is not looked at."""
        return F.mse_loss(z, torch.zeros_like(z))

    def some_points(self, x: Any, most: int, generator: torch.Generator) -> Any:
        """Return a batch of about so many points, drawn from x in proportion to its groups.

        Its loss, and what is made of it, have those of x as their mean over draws.

        Args:
            x: As for ``forward``.
            most: How many points; a group keeps at least one.
            generator: On the CPU.
        """
        batches = self._batches(x)
        total = sum(len(batch[0]) for _, batch in batches)
        found = {}
        for name, batch in batches:
            n = len(batch[0])
            count = min(n, max(1, round(most * n / total)))
            drawn = torch.randperm(n, generator=generator)[:count].to(batch[0].device)
            found[name] = batch if count == n else tuple(t[drawn] for t in batch)
        return found[""] if self.single else found

    def sample_functions(self, x: Any, outputs: Mapping[str, int]) -> list[SampleFunction]:
        """Return each group's residuals as functions of parameters and one sample.

        Args:
            x: As for ``forward``.
            outputs: How many numbers each group's function returns.
        """
        batches = self._batches(x)
        counts = [len(batch[0]) * outputs[name] for name, batch in batches]
        return [
            SampleFunction(
                self._bound(self.functions[name]), batch, self._scale(name, n, sum(counts))
            )
            for (name, batch), n in zip(batches, counts, strict=True)
        ]

    def outputs(self, x: Any) -> dict[str, int]:
        """Return how many numbers each group's function returns for a point."""
        field = Field(self.network)
        with torch.no_grad():
            return {
                name: self.functions[name](field, *(t[0] for t in batch)).numel()
                for name, batch in self._batches(x)
            }

    def _bound(self, function: Residual) -> Callable[..., Tensor]:
        def of_parameters(parameters: Mapping[str, Tensor], *point: Any) -> Tensor:
            names = {name.removeprefix("network."): p for name, p in parameters.items()}
            return function(Field(self.network, names), *point)

        return of_parameters

    def _explained(self, name: str, batch: tuple[Tensor, ...], error: Exception) -> str:
        """Say what a residual could not be computed for, and what may help."""
        group = f" of group {name!r}" if name else ""
        told = f"the residual{group} fails at points of shape {tuple(batch[0].shape[1:])}"
        mixing = [
            type(m).__name__
            for m in self.network.modules()
            if m.training and isinstance(m, nn.modules.batchnorm._BatchNorm | _DropoutNd)
        ]
        if mixing:
            return (
                f"{told}: the network has {mixing[0]}, and a residual is of one point, without "
                "random numbers: leave it out, or call network.eval()"
            )
        own = next((p.dtype for p in self.network.parameters()), None)
        given = next((t.dtype for t in batch if t.is_floating_point() and t.dtype != own), None)
        if own is not None and given is not None:
            return (
                f"{told}: the network is of {own} and a tensor of the batch of {given}, convert "
                f"one ({error})"
            )
        return f"{told}: {error}"

    def _scale(self, name: str, count: int, rows: int) -> float:
        return math.sqrt(self.weights[name] * rows / count)

    def _batches(self, x: Any) -> list[tuple[str, tuple[Tensor, ...]]]:
        """Return the tensors of each group that has points, in the functions' order."""
        if self.single:
            x = {"": x}
        if not isinstance(x, Mapping) or (unknown := [n for n in x if n not in self.functions]):
            wrong = type(x).__name__ if not isinstance(x, Mapping) else f"{unknown[0]!r}"
            raise CurvatureError(
                f"residuals take a dict of points by group ({', '.join(self.functions)}), "
                f"not {wrong}"
            )
        found = []
        for name in (n for n in self.functions if n in x):
            batch = x[name] if isinstance(x[name], tuple) else (x[name],)
            if len({len(t) for t in batch}) > 1:
                raise CurvatureError(
                    f"the tensors of group {name!r} differ in length: "
                    f"{', '.join(str(len(t)) for t in batch)}"
                )
            if len(batch[0]):
                found.append((name, batch))
        if not found:
            raise CurvatureError("the batch is empty: there is no point in any group")
        return found
