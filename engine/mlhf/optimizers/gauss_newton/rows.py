"""Chooses how a network's rows are computed, and proves on its first batch that they are right."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlhf.curvature.consistency import normal_like
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.ggn import GGN
from mlhf.curvature.jacobian.chunks import Jacobian, Unsuitable
from mlhf.curvature.jacobian.edges import EdgeJacobian
from mlhf.curvature.jacobian.functional import FunctionalJacobian
from mlhf.curvature.loss_roots import LossRoot, loss_root
from mlhf.curvature.protocol import Loss
from mlhf.curvature.residuals import Residuals
from mlhf.curvature.vectors import flatten, vector_like
from mlhf.optimizers.gauss_newton.memory_plan import MemoryPlan, memory_plan
from mlhf.optimizers.gauss_newton.systems import ParameterSpace, SampleSpace

_WAYS: tuple[Callable[[nn.Module, Sequence[Tensor]], Jacobian], ...] = (
    EdgeJacobian,
    FunctionalJacobian,
)
_FAILURES = (Unsuitable, RuntimeError, ValueError, TypeError, NotImplementedError, IndexError)
_FORMS = 64  # of batches that are remembered


class ChosenRows:
    """Finds a way to the rows of a network, once for each mode of it and form of its batches.

    A way is taken where SJv, by its rows, agrees with the tangent pass of ``GGN`` for a random
    v. Networks that mix samples (batch norm in training), or draw random numbers that a second
    pass would not repeat, have none.

    Args:
        model: The network.
        loss: ℓ.
        parameters: θ.
        memory_bytes: The bound on rows and matrices.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, parameters: Sequence[Tensor], memory_bytes: int
    ) -> None:
        self._model, self._loss, self._parameters = model, loss, list(parameters)
        self._bytes = memory_bytes
        self._found: dict[Any, Jacobian | None] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "ChosenRows":
        model, parameters = memo.get(id(self._model)), []
        parameters = [memo.get(id(p), p) for p in self._parameters]
        return ChosenRows(model or self._model, self._loss, parameters, self._bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_found": {}}

    def get(self, x: Any, y: Any) -> Jacobian | None:
        """Return what computes the rows of such batches, or None where nothing does."""
        key = self._form(x)
        if key in self._found:
            return self._found[key]
        found, certain = self._find(x, y)
        if certain:
            if len(self._found) >= _FORMS:
                self._found.clear()
            self._found[key] = found
        return found

    def system(
        self, jacobian: Jacobian, x: Any, y: Any, penalty: float
    ) -> tuple[Tensor, SampleSpace | ParameterSpace]:
        """Return the batch's loss, and its system in the smaller space.

        Args:
            jacobian: What ``get`` returned for this batch.
            x: The input.
            y: The target.
            penalty: w.
        """
        root = loss_root(self._loss, jacobian.forward(x), y)
        assert root is not None  # as it was when the way was chosen
        residual = root.residual.reshape(-1)
        plan = self.plan(len(residual), jacobian.factored)
        assert plan is not None
        chunks = jacobian.chunks(root.root, plan.block)
        with torch.no_grad():
            common = chunks, residual, flatten(self._parameters), penalty
            if plan.space == "samples":
                return root.value, SampleSpace(*common, keep=plan.block >= len(residual))
            return root.value, ParameterSpace(*common)

    def plan(self, rows: int, factored: bool = False) -> MemoryPlan | None:
        """Return how so many rows are solved for; None where nothing fits.

        Args:
            rows: n, samples times outputs.
            factored: Whether the rows are factors, so that n² numbers are all there is.
        """
        parameters = sum(p.numel() for p in self._parameters)
        itemsize = vector_like(self._parameters).dtype.itemsize
        square = 2 * rows * rows * itemsize
        if factored and rows <= parameters and square <= self._bytes:
            return MemoryPlan("samples", rows, square)
        return memory_plan(rows, parameters, itemsize, self._bytes)

    def _form(self, x: Any) -> Any:
        leaves, tree = pytree.tree_flatten(x)
        shapes = tuple(t.shape if isinstance(t, Tensor) else None for t in leaves)
        placed = tuple((p.device, p.dtype) for p in self._parameters[:1])
        return str(tree), shapes, placed, tuple(m.training for m in self._model.modules())

    def _find(self, x: Any, y: Any) -> tuple[Jacobian | None, bool]:
        """Return a way to the rows, and whether that may be remembered."""
        replay = ForwardReplay(self._model, self._parameters[0].device)
        v = normal_like(self._parameters, 2)
        expected: Tensor | None = None
        for way in _WAYS[1:] if isinstance(self._model, Residuals) else _WAYS:
            try:
                jacobian = way(self._model, self._parameters)
                with replay.restored_state():
                    z = jacobian.forward(x)
                root = loss_root(self._loss, z, y)
                if root is None:
                    return None, True
                if expected is None:
                    expected = self._expected(root, v, replay, x, y)
                    if not bool(torch.isfinite(expected).all()):
                        return None, False
                plan = self.plan(root.residual.numel(), jacobian.factored)
                if plan is None or plan.space == "iterative":
                    return None, True
                with replay.restored_state():
                    right = _agree(jacobian, root.root, expected, v, plan.block)
                jacobian.clear()
                if right:
                    return jacobian, True
            except _FAILURES as error:
                if isinstance(error, torch.OutOfMemoryError | CurvatureError):
                    raise
        return None, True

    def _expected(
        self, root: LossRoot, v: Sequence[Tensor], replay: ForwardReplay, x: Any, y: Any
    ) -> Tensor:
        """Return SJv by a tangent pass, shape (rows,)."""
        with replay.restored_state():
            ggn = GGN(self._model, self._loss, x, y, self._parameters)
        (u,) = ggn.jvp(v)
        return torch.einsum("nkc,nc->nk", root.root, u.reshape(len(u), -1)).reshape(-1)


def _agree(
    jacobian: Jacobian, root: Tensor, expected: Tensor, v: Sequence[Tensor], most: int
) -> bool:
    chunks = jacobian.chunks(root, most)
    for chunk in {0: chunks[0], 1: chunks[len(chunks) // 2], 2: chunks[-1]}.values():
        found = chunk.rows().times(flatten(v))
        wanted = expected[chunk.start : chunk.stop]
        tolerance = math.sqrt(torch.finfo(found.dtype).eps)
        if not bool((found - wanted).norm() <= tolerance * wanted.norm()):
            return False
    return True
