"""Hooks on gradients: autograd runs them wherever it goes, and a tangent never meets them.

So where one changes a gradient, what is taken for Jᵀ is not the transpose of J. Nodes do not
show their hooks; but whatever is registered in Python takes the next number of torch's own
count, a module's backward hooks too as its forward pass puts them on nodes. Hooks that run
after a leaf's gradient is accumulated are never run here, and do no harm.
"""

from collections.abc import Iterable

from torch import Tensor
from torch.utils.hooks import RemovableHandle

CHANGED = (
    "a hook changes gradients in this network, so a product through it would be wrong: remove "
    "it (Tensor.register_hook, a module's backward hook), or do its work in forward()"
)
UNKNOWN = (
    "a hook was registered on a parameter or during this network's forward pass, and where a "
    "whole backward pass is differentiated, as a Hessian or a custom autograd function needs, "
    "it cannot be told whether it changes gradients: remove it"
)


def hook_count() -> int:
    """Return how many hooks, of any kind, were registered until now."""
    return RemovableHandle.next_id


def any_on(leaves: Iterable[Tensor]) -> bool:
    """Whether a gradient is given to a hook on its way to one of these leaves."""
    return any(leaf._backward_hooks for leaf in leaves)
