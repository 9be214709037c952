"""Whether every step has the same samples: all that there are, in any order.

Then the loss of a batch is the loss, and a step may be looked at. It is decided in the first
steps, so that others pay nothing for it.

It is made use of for losses that are quadratic in the outputs, which have a minimum that is worth
reaching exactly: cross-entropy falls without end where classes can be told apart, and the faster
it does, the worse for other samples.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlhf.curvature.forward_pass import evaluated
from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import loss_of
from mlhf.optimizers.protocol import State

_STEPS = 3  # with the same samples, until they are taken for all
_TOLERANCE = 1e-11  # of sums in another order, relative to those of magnitudes
_QUADRATIC = 1e-3  # how well a loss is a parabola along a random direction of outputs, relative
_STALL_STEPS, _STALL = 20, 2e-4  # so many that lower the loss by less than this part


class RepeatedBatch:
    """Compares each batch with the first, by sums that do not depend on its order.

    Attributes:
        over: Whether a batch was another one: it never begins again.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._times = 0
        self._mark: tuple[float, int] | None = None  # a loss, and for how many steps it is known
        self.over = False

    def see(self, x: Any, y: Any) -> bool:
        """Look at a step's batch; return whether all so far, enough of them, were the same."""
        if self.over:
            return False
        sums = _sums(x, y)
        if sums is None:
            self.over = True
            return False
        first = sums if self._sums is None else self._sums
        self._sums = first
        if first.shape != sums.shape or not bool(
            ((sums[0] - first[0]).abs() <= _TOLERANCE * sums[1]).all()
        ):
            self.over = True
            return False
        self._times = min(self._times + 1, _STEPS)
        return self._times >= _STEPS

    def see_loss(self, loss: float) -> None:
        """Look at the loss after steps that make use of it: where they stall, it is over.

        A kink of the network may hold back steps that are exact for its linear part.
        """
        if self._mark is None:
            self._mark = loss, 0
        before, steps = self._mark
        self._mark = before, steps + 1
        if steps >= _STALL_STEPS:
            self.over = loss > (1 - _STALL) * before
            self._mark = loss, 1

    def state_dict(self) -> State:
        mark = None if self._mark is None else list(self._mark)
        return {"sums": self._sums, "times": self._times, "mark": mark, "over": self.over}

    def load_state_dict(self, state: State | None) -> None:
        """Restore what ``state_dict`` returned; None is a state from before there was any."""
        # A run that began without it goes on without it.
        state = state or {"sums": None, "times": 0, "mark": None, "over": True}
        self._sums, self._times = state["sums"], int(state["times"])
        mark = state["mark"]
        self._mark = None if mark is None else (float(mark[0]), int(mark[1]))
        self.over = bool(state["over"])


@torch.no_grad()
def exact_rows(model: nn.Module, loss: Loss, x: Any, y: Any, device: torch.device) -> int | None:
    """Return how many numbers a model gives for a batch, where their loss is quadratic in them.

    None where it is not, or where the model draws random numbers.
    """
    replay = ForwardReplay(model, device)
    with replay.restored_state():
        z = evaluated(model, x)
        if replay.drawn_since():
            return None
    if not isinstance(z, Tensor) or not z.is_floating_point():
        return None
    u = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
    at = {t: loss_of(loss, z + t * u, y) for t in (-2, -1, 0, 1, 2)}
    one, two = (at[t] + at[-t] - 2 * at[0] for t in (1, 2))
    return z.numel() if bool((two - 4 * one).abs() <= _QUADRATIC * one) else None


def _sums(x: Any, y: Any) -> Tensor | None:
    """Return sums over all samples, and those of magnitudes, (2, m) on the CPU in float64.

    Beside first and second moments, the products of neighbouring tensors' sums by sample, which
    tell which target belongs to which input. None where a batch has none.
    """
    tensors = [t for t in pytree.tree_leaves((x, y)) if isinstance(t, Tensor) and t.ndim]
    if not tensors or any(t.is_complex() or t.is_sparse or not t.numel() for t in tensors):
        return None
    found, before = [], None
    for tensor in tensors:
        # Some devices have no float64.
        t = tensor.detach().cpu().double().reshape(len(tensor), -1)
        of_sample = t.sum(1)
        terms = [torch.ones_like(of_sample), t, t.square()]
        if before is not None and len(before) == len(of_sample):
            terms.append(before * of_sample)
        found += [torch.stack([term.sum(), term.abs().sum()]) for term in terms]
        before = of_sample
    return torch.stack(found, 1)
