"""Parameter groups: options that differ between parameters."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.core.errors import DataError
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.vectors import upcast
from mlhf.optimizers.options import check_options, known_options

Group = dict[str, Any]
# Tensors, (name, tensor) pairs, or dicts with "params" and options: as torch.optim takes them.
Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]]


def groups_of(parameters: Parameters) -> list[Group]:
    """Return what ``torch.optim`` takes as parameters as a list of groups.

    Raises:
        TypeError: where it is something else.
        CurvatureError: where there is no parameter in it.
    """
    if isinstance(parameters, Tensor | Mapping):
        raise TypeError(
            "parameters should be an iterable of tensors, of (name, tensor) pairs or of groups, "
            f"not a {type(parameters).__name__}"
        )
    items = list(parameters)
    if items and isinstance(items[0], Mapping):
        groups = [tensors_of(item) for item in items]
    else:
        groups = [tensors_of({"params": items})]
    if not any(group["params"] for group in groups):
        raise CurvatureError("no parameter was given")
    return groups


def tensors_of(group: Any) -> Group:
    """Return a copy of a group, its parameters as a list of tensors.

    Raises:
        TypeError: where it is no group, or holds something else than tensors.
    """
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(f"a group is a dict with 'params' and options, not {group!r}")
    params = group["params"]
    if isinstance(params, set):
        raise TypeError("a group's params should be a list: the order of a set changes")
    items = [params] if isinstance(params, Tensor) else list(params)
    tensors = [item[1] if isinstance(item, tuple) else item for item in items]
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"a group's params should be tensors, not {type(tensor).__name__}")
    return {**group, "params": tensors}


def complete(group: Group, defaults: Mapping[str, Any], model: nn.Module) -> Group:
    """Return a group with its options checked, defaults filled in, and names.

    Raises:
        ValueError: for an option out of range, or one that a group cannot have.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    group = {
        **defaults,
        **group,
        "param_names": [names.get(id(p), "") for p in group["params"]],
    }
    for name, value in group.items():
        if name in defaults:
            check_options(**{name: _number(value)})
        elif name in known_options():
            raise ValueError(
                f"{name}={value!r} in a parameter group: groups differ in {', '.join(defaults)}; "
                f"{name} is one for all parameters"
            )
    return group


def option(groups: Sequence[Group], name: str, order: Sequence[Tensor]) -> float | list[float]:
    """Return an option's value: one number, or one for each parameter where groups differ.

    Args:
        groups: The groups.
        name: Of an option that is a number.
        order: The parameters in the order of the list.

    Raises:
        ValueError: where a value is not finite or negative.
    """
    values: list[float] = [_number(group[name]) for group in groups]
    for k, value in enumerate(values):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}={value!r} of group {k} is not allowed: it should be >= 0")
    if all(value == values[0] for value in values):
        return values[0]
    by_id = {
        id(p): value for group, value in zip(groups, values, strict=True) for p in group["params"]
    }
    return [by_id[id(p)] for p in order]


def flat(values: Sequence[float], parameters: Sequence[Tensor]) -> Tensor:
    """Return the values as a vector (n,), each as often as its parameter has elements."""
    return torch.cat(
        [
            upcast(p.detach()).new_full((p.numel(),), v)
            for v, p in zip(values, parameters, strict=True)
        ]
    )


def saved(groups: Sequence[Group]) -> list[Group]:
    """Return the groups as a state holds them: parameters by index, with their names."""
    result, at = [], 0
    for group in groups:
        indices = list(range(at, at + len(group["params"])))
        at += len(indices)
        result.append({**group, "params": indices})
    return result


def check(groups: Sequence[Group], state: Any) -> None:
    """Check that ``saved`` returned a state of these groups.

    Raises:
        DataError: where they are groups of other parameters.
    """
    sizes, found = ([len(g["params"]) for g in each] for each in (groups, state))
    if sizes != found:
        raise DataError(
            f"this state is for other parameter groups: it has {_numbers(found)} parameters in "
            f"them, the optimizer has {_numbers(sizes)}"
        )
    ours, theirs = ([n for g in each for n in g.get("param_names", ())] for each in (groups, state))
    if ours != theirs and sorted(ours) == sorted(theirs):
        k = next(k for k, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"this state has the parameters in another order: {theirs[k]} where the optimizer has "
            f"{ours[k]}. Give the parameters in the same order, in the same groups"
        )


def restore(groups: Sequence[Group], state: Any) -> None:
    """Give groups the options that ``saved`` returned; parameters stay."""
    for group, options in zip(groups, state, strict=True):
        kept = {name: group[name] for name in ("params", "param_names")}
        group.update({**options, **kept})


def _number(value: Any) -> Any:
    """Return a scalar tensor, as schedulers may set, as a number."""
    return value.item() if isinstance(value, Tensor) else value


def _numbers(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
