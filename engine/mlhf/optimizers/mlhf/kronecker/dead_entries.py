"""Entries of a matrix that have had no gradient so far, where no row or column of them shows it.

Pruned or masked weights are such. The eigenbases of rows and columns leave alone whole rows and
columns without a gradient (``eigenvectors.py``), but mix these entries with others, so that a
direction has to be cleared of them. No curvature is lost by that: the loss does not depend on
them.
"""

import torch
from torch import Tensor

from mlhf.optimizers.protocol import State


class DeadEntries:
    """Follows which entries of a matrix, or of a stack of matrices, have had a gradient.

    Next to nothing once all have had one. Until then gradients are looked at where the means
    of the basis are updated, and in each step only while a direction has to be cleared.

    Attributes:
        mask: 0 for entries that a direction has to be cleared of, 1 for others; None where
            rows and columns account for all.
    """

    def __init__(self) -> None:
        self._alive: Tensor | None = None
        self._extent: tuple[Tensor, Tensor] | None = None  # of it, where that is known
        self._all_alive = False
        self.mask: Tensor | None = None

    def update(self, gradient: Tensor, live: Tensor | None = None) -> None:
        """Include a gradient, (…, out, in), and look again whether there has to be a mask.

        Args:
            gradient: It.
            live: The rows that are not zero, where that is known.
        """
        if self._all_alive:
            return
        if self._alive is not None and live is not None:
            alive, some = self._alive.clone(), gradient[live] != 0
            alive[live] |= some
            before = self._extent or _extent(self._alive)
            of_some = _extent(some)
            rows, columns = before[0].clone(), before[1] | of_some[1]
            rows[live] |= of_some[0]
        else:
            alive = gradient != 0
            if self._alive is not None:
                alive |= self._alive
            rows, columns = _extent(alive)
        most = (rows.sum(-1) * columns.sum(-1)).sum()  # entries in rows and columns with one
        found, most = torch.stack([torch.count_nonzero(alive), most]).tolist()
        self._all_alive = found == alive.numel()
        self._alive = None if self._all_alive else alive
        self._extent = None if self._all_alive else (rows, columns)
        self.mask = alive.to(gradient) if found < most else None

    def see(self, gradient: Tensor) -> None:
        """Include a step's gradient; what has one is no longer cleared."""
        if self.mask is not None and self._alive is not None:
            self._alive = self._alive | (gradient != 0)
            self._extent = None
            self.mask = self._alive.to(gradient)

    def state_dict(self) -> State:
        return {"alive": self._alive, "all_alive": self._all_alive, "mask": self.mask}

    def load_state_dict(self, state: State | None, like: Tensor) -> None:
        """Restore what ``state_dict`` returned; older checkpoints have none, and clear nothing."""
        state = state or {"alive": None, "all_alive": True, "mask": None}
        alive, mask = state["alive"], state["mask"]
        self._all_alive = bool(state["all_alive"])
        self._extent = None
        self._alive = None if alive is None else alive.to(like.device, copy=True)
        self.mask = None if mask is None else mask.to(like, copy=True)


def _extent(alive: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows and which columns, of each matrix, have an entry that is alive."""
    return alive.any(-1), alive.any(-2)
