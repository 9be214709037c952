"""Hooks on a user's modules that do not outlive, or travel without, what they report to."""

import weakref
from typing import Any

import torch


class WeakHook:
    """Calls a method of an object, as long as that is alive.

    A copy or a pickle of the module has a hook that does nothing: it reports to no one.

    Args:
        target: The object.
        method: The method's name.
        first: Its first arguments, before the hook's own.
    """

    def __init__(self, target: "weakref.ref[Any] | None", method: str, *first: Any) -> None:
        self._target, self._method, self._first = target, method, first

    def __call__(self, *args: Any) -> None:
        if torch.compiler.is_compiling() or self._target is None:
            return
        target = self._target()
        if target is not None:
            getattr(target, self._method)(*self._first, *args)

    def __deepcopy__(self, memo: object) -> "WeakHook":
        return WeakHook(None, self._method, *self._first)

    def __reduce__(self) -> tuple[Any, ...]:
        return WeakHook, (None, self._method, *self._first)
