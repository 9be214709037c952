"""Saving a state, reading it back, and whether it is this optimizer's at all."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from mlhf.core.errors import DataError
from mlhf.optimizers.protocol import State

T = TypeVar("T")


def copied(state_dict: Callable[[T], State]) -> Callable[[T], State]:
    """Make a method ``state_dict`` return copies of the tensors.

    Otherwise a state that is kept in memory would change with the next step.
    """

    @functools.wraps(state_dict)
    def copy(self: T) -> State:
        return tensors_copied(state_dict(self))

    return copy


def tensors_copied(state: State) -> State:
    """Return the same tree of dicts, lists and values with copies of its tensors."""
    return {name: _copy(item) for name, item in state.items()}


def _copy(item: Any) -> Any:
    if isinstance(item, Tensor):
        return item.detach().clone()
    if isinstance(item, dict):
        return tensors_copied(item)
    if isinstance(item, (list, tuple)):
        return [_copy(each) for each in item]
    return item


def restored(saved: Tensor | None, like: Tensor) -> Tensor | None:
    """Return a copy with the device and dtype of ``like``, or None where nothing was saved."""
    return None if saved is None else saved.to(like, copy=True)


def restored_list(saved: Sequence[Tensor] | None, like: Tensor) -> list[Tensor] | None:
    """Return copies with the device and dtype of ``like``, or None where nothing was saved."""
    return None if saved is None else [t.to(like, copy=True) for t in saved]


def shapes_of(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Return the parameters' shapes, which a state keeps under ``shapes``."""
    return [list(p.shape) for p in parameters]


def check_state(
    optimizer: object,
    state: Any,
    needed: Collection[str],
    parameters: Sequence[Tensor] = (),
    model: nn.Module | None = None,
) -> None:
    """Check, before anything is restored, that a state is one of this optimizer and network.

    Args:
        optimizer: The optimizer.
        state: What was given to ``load_state_dict``.
        needed: The keys that a state of this kind has had since its first version.
        parameters: What is trained; states of earlier versions do not tell the shapes.
        model: Whose parameters they are, for their names.

    Raises:
        DataError: naming what differs.
    """
    name = type(optimizer).__name__
    if not isinstance(state, Mapping):
        raise DataError(f"this is no state of {name}, but a {type(state).__name__}")
    missing = [key for key in needed if key not in state]
    if missing:
        found = ", ".join(map(str, state)) or "nothing"
        raise DataError(
            f"this is no state of {name}: it lacks {', '.join(missing)}. It has {found}"
        )
    saved = state.get("shapes")
    if saved is None or saved == shapes_of(parameters):
        return
    if len(saved) != len(parameters):
        raise DataError(
            f"this state is for another network: it has {len(saved)} parameters that are trained, "
            f"the model has {len(parameters)}"
        )
    names = {} if model is None else {id(p): n for n, p in model.named_parameters()}
    for k, (p, shape) in enumerate(zip(parameters, saved, strict=True)):
        if list(p.shape) != list(shape):
            raise DataError(
                f"this state is for another network: parameter {names.get(id(p), k)} has shape "
                f"{tuple(shape)} in it, and {tuple(p.shape)} in the model"
            )
