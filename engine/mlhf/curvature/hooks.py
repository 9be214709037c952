"""Detecting hooks on gradients, which would make products wrong.

Backward passes run hooks, forward tangents do not. Where a hook changes a gradient, the
backward pass is no longer the transpose Jᵀ of J. Nodes do not show their hooks. But every
registration in Python increments a counter of torch's, also that of a module's backward
hooks, which its forward pass puts on nodes. Hooks that run after a leaf's gradient is
accumulated never run here, and do no harm.
"""

import threading
from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

from torch import Tensor
from torch.utils.hooks import RemovableHandle

CHANGED = (
    "a hook changes gradients in this network, so a product through it would be wrong: remove "
    "it (Tensor.register_hook, a module's backward hook), or do its work in forward()"
)
UNKNOWN = (
    "a hook was registered on a parameter or during this network's forward pass, and where a "
    "whole backward pass is differentiated, as a Hessian or a custom autograd function needs, "
    "it is not known whether it changes gradients: remove it"
)


_lock = threading.Lock()
_reading = 0  # hooks of ours, which read only
_ours: WeakValueDictionary[int, RemovableHandle] = WeakValueDictionary()  # by their key


def hook_count() -> int:
    """Return how many hooks, of any kind, the process has registered so far, but for ours.

    Those of other threads count too: they make a check necessary that would not be.
    """
    with _lock:
        return RemovableHandle.next_id - _reading


def register_reading(
    registrations: Iterable[Callable[[], RemovableHandle]],
) -> list[RemovableHandle]:
    """Register hooks that change nothing, which ``hook_count`` leaves out.

    Other threads may be in their forward passes meanwhile.
    """
    global _reading
    with _lock:
        handles = [register() for register in registrations]
        _reading += len(handles)
        _ours.update({handle.id: handle for handle in handles})
    return handles


def only_reads(key: int) -> bool:
    """Whether the hook that a module keeps under this key is one of ours, which changes nothing."""
    return key in _ours


def any_on(leaves: Iterable[Tensor]) -> bool:
    """Whether one of these leaves has a hook on its gradient."""
    return any(leaf._backward_hooks for leaf in leaves)
