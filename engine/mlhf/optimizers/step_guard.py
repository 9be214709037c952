"""Steps that are not finite are skipped, and leave parameters and state as they were."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlhf.core.errors import DivergedError
from mlhf.optimizers.options import check_model, check_options
from mlhf.optimizers.protocol import State, StepResult

_log = logging.getLogger(__name__)

# What is wrong, and what helps, by what was not finite.
_ADVICE = {
    "inputs": "they hold NaN or infinity: find and mend those samples, or leave them out",
    "targets": "they hold NaN or infinity: find and mend those samples, or leave them out",
    "parameters": "they were not before the step either: check how the model was initialised or "
    "loaded",
    "loss": "inputs, targets and parameters are finite, so the model or the loss overflows, or is "
    "undefined there: lower lr, raise the damping where there is one, scale inputs and targets",
    "gradient": "the loss is finite, but its gradient or the gradient's square is not: add a small "
    "constant under a norm or a root that may be 0; where the loss is very large, lower lr, raise "
    "the damping where there is one, scale inputs and targets",
    "direction": "loss and gradient are finite, but not the step made of them: raise the damping, "
    "lower lr, or scale inputs and targets",
    "updated parameters": "the step would have made them infinite: lower lr",
}


class NotFinite(Exception):  # noqa: N818
    """Ends a step that is not finite.

    Args:
        cause: What is not finite, a key of ``_ADVICE``.
        loss: The step's loss.
    """

    def __init__(self, cause: str, loss: Tensor) -> None:
        super().__init__(cause)
        self.cause, self.loss = cause, loss


class StepGuard:
    """Runs an optimizer's steps; those that raise ``NotFinite`` leave no trace but a count.

    The model's buffers (such as batch norm's statistics) and the random state are as before
    the step then, and so are the attributes of the objects that hold the optimizer's state.
    A NaN in a batch is no fault by itself, since a model may mask it: what counts is whether
    loss, gradient and step are finite.

    Args:
        model: The model that is trained.
        max_skipped_steps: After so many skipped steps in a row the next one raises.
        state: Objects whose attributes are the optimizer's state, and generators; a function
            where steps make new ones. A step must replace these attributes, and change none in
            place before the last ``check``.

    Attributes:
        skipped_steps: How many steps were skipped so far.

    Raises:
        ValueError: where ``max_skipped_steps`` is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        max_skipped_steps: int,
        state: Sequence[object] | Callable[[], Sequence[object]] = (),
    ) -> None:
        check_options(max_skipped_steps=max_skipped_steps)
        check_model(model)
        self._limit = max_skipped_steps
        self._model = model
        self._state = state
        self.skipped_steps = 0
        self._in_a_row = 0

    def run(self, step: Callable[[Any, Any], StepResult], x: Any, y: Any) -> StepResult:
        """Return the result of ``step(x, y)``, or that of a skipped step.

        An error in the step leaves no trace either.

        Raises:
            DivergedError: where more than ``max_skipped_steps`` in a row were not finite.
        """
        state = self._state() if callable(self._state) else self._state
        before = _Snapshot(self._model, state)
        try:
            result = step(x, y)
        except NotFinite as error:
            before.restore()
            return self._skip(error, x, y)
        except Exception:
            before.restore()
            raise
        self._in_a_row = 0
        return replace(result, skipped_steps=self.skipped_steps) if self.skipped_steps else result

    def state_dict(self) -> State:
        return {"skipped_steps": self.skipped_steps, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: State | None) -> None:
        """Restore what ``state_dict`` returned; None is a state from before there was any."""
        state = state or {"skipped_steps": 0, "in_a_row": 0}
        self.skipped_steps, self._in_a_row = int(state["skipped_steps"]), int(state["in_a_row"])

    def _skip(self, error: NotFinite, x: Any, y: Any) -> StepResult:
        cause = error.cause
        if not all_finite(list(self._model.parameters())):
            cause = "parameters"
        for name, batch in (("targets", y), ("inputs", x)):
            if not all_finite(batch):
                cause = name
        self.skipped_steps += 1
        self._in_a_row += 1
        if self._in_a_row > self._limit:
            raise DivergedError(
                f"{self._in_a_row} steps in a row were not finite and were skipped. What was not "
                f"finite in the last: the {cause}; {_ADVICE[cause]}."
            )
        if self._in_a_row == 1:
            _log.warning("a step was skipped. Not finite: the %s; %s", cause, _ADVICE[cause])
        return StepResult(error.loss.detach(), {}, cause, self.skipped_steps)


class _Snapshot:
    """What a step may change before it is known to be finite.

    Buffers and random states are copied. Of the other state only references are kept, since
    steps replace it.
    """

    def __init__(self, model: nn.Module, state: Sequence[object]) -> None:
        self._buffers = [
            (module, name, buffer, None if buffer is None else buffer.clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
        ]
        parameter = next(model.parameters(), None)
        self._cuda = parameter.device if parameter is not None and parameter.is_cuda else None
        self._rng = torch.get_rng_state()
        self._cuda_rng = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)
        self._attributes = [
            # No isinstance, which torch's metaclass answers in Python.
            (item, item.get_state() if type(item) is torch.Generator else item.__dict__.copy())
            for item in state
        ]

    @torch.no_grad()
    def restore(self) -> None:
        for module, name, buffer, value in self._buffers:
            module._buffers[name] = buffer
            if buffer is not None and value is not None:
                buffer.copy_(value)
        torch.set_rng_state(self._rng)
        if self._cuda is not None and self._cuda_rng is not None:
            torch.cuda.set_rng_state(self._cuda_rng, self._cuda)
        for item, saved in self._attributes:
            if isinstance(item, torch.Generator):
                assert isinstance(saved, Tensor)
                item.set_state(saved)
            else:
                assert isinstance(saved, dict)
                vars(item).clear()
                vars(item).update(saved)


def check(loss: Tensor, values: Mapping[str, Sequence[Tensor]]) -> list[float]:
    """Return the norm of each list of tensors; raise where one is not finite.

    Waits for the device, once.

    Args:
        loss: The step's loss, a scalar.
        values: Lists of tensors by what they are, as ``NotFinite`` names them.

    Raises:
        NotFinite: naming the first that is not finite, the loss first.
    """
    groups = [_norms(tensors) for tensors in values.values()]
    numbers = [loss.detach().reshape(()), *(n for group in groups for n in group)]
    if any(n.dtype != loss.dtype or n.device != loss.device for n in numbers):
        numbers = [n.to(loss.device, torch.float64) for n in numbers]
    on_host = iter(torch.stack(numbers).tolist())
    if not math.isfinite(next(on_host)):
        raise NotFinite("loss", loss)
    norms = [math.hypot(*(next(on_host) for _ in group)) for group in groups]
    for cause, value in zip(values, norms, strict=True):
        if not math.isfinite(value):
            raise NotFinite(cause, loss)
    return norms


def norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all elements; not finite if one is not. Waits for the device.

    Nor is it if the square of one is not finite: a step with such numbers is hopeless. Other
    norms, and ``isfinite``, take twenty times as long on a CPU.
    """
    return math.hypot(*(float(n) for n in _norms(tensors)))


def _norms(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    found = [t.detach()._values() if t.is_sparse else t.detach() for t in tensors]
    found = [t for t in found if t.numel()]
    if not found:
        return []
    low = any(t.dtype.itemsize < 4 for t in found)
    return torch._foreach_norm(found, 2, torch.float32 if low else None)


def add(
    parameters: Sequence[Tensor],
    update: Sequence[Tensor],
    factor: float,
    size: float,
    loss: Tensor,
) -> None:
    """θ ← θ + factor · update, unless that is not finite.

    Where the update is too small to make finite parameters infinite, which is nearly always,
    nothing is copied and nothing waited for.

    Args:
        parameters: θ.
        update: Tensors like them, finite.
        factor: Its factor.
        size: At least the largest magnitude in the update, such as its norm.
        loss: The step's loss.

    Raises:
        NotFinite: with θ as it was.
    """
    tensors = list(parameters)
    small = all(abs(factor) * size < 0.1 * _unit(dtype) for dtype in {p.dtype for p in tensors})
    before = None if small else [p.detach().clone() for p in tensors]
    torch._foreach_add_(tensors, list(update), alpha=factor)
    if before is not None and not all_finite(tensors):
        torch._foreach_copy_(tensors, before)
        raise NotFinite("updated parameters", loss)


def _unit(dtype: torch.dtype) -> float:
    """Return the distance between the largest numbers of a dtype."""
    finfo = torch.finfo(dtype)
    return float(finfo.max) * float(finfo.eps)


def large_number(dtype: torch.dtype) -> float:
    """Return a number that training seldom sees, far below the root of the largest float.

    What an optimizer makes of smaller gradients and parameters, squares too, is finite.
    """
    return min(1e6, 0.01 * math.sqrt(torch.finfo(dtype).max))


def all_finite(values: Any) -> bool:
    """Whether all numbers are finite in a tensor or a tree of tensors."""
    return all(
        bool(torch.isfinite(v._values() if v.is_sparse else v).all())
        for v in pytree.tree_leaves(values)
        if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex())
    )
