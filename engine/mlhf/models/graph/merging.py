"""Records of several runs as one: of several batches, and of both modes."""

from collections.abc import Sequence
from typing import Any

from mlhf.models.graph.spec import references
from mlhf.models.graph.table import RANDOM, in_place


class DiffersError(ValueError):
    """Two records that are no forms of one; ``path`` says where."""

    def __init__(self, path: tuple[int | str, ...], what: str) -> None:
        super().__init__(f"{'/'.join(map(str, path))}: {what}")
        self.path = path


def merge_batches(
    values: Sequence[Any], sizes: Sequence[int], path: tuple[int | str, ...] = ()
) -> Any:
    """Return one value for all batches, with numbers that grow with the batch as such.

    Args:
        values: JSON, recorded of batches of ``sizes`` samples.
        sizes: At least three.

    Raises:
        DiffersError: they differ otherwise.
    """
    first = values[0]
    if all(type(value) is type(first) and value == first for value in values):
        return first
    kinds = {type(value) for value in values}
    if kinds == {int}:
        factor, rest = divmod(values[1] - first, sizes[1] - sizes[0])
        plus = first - factor * sizes[0]
        if rest == 0 and all(factor * n + plus == v for n, v in zip(sizes, values, strict=True)):
            return {"batch": factor, "plus": plus} if plus else {"batch": factor}
    if kinds == {dict} and all(set(value) == set(first) for value in values):
        return {
            key: merge_batches([value[key] for value in values], sizes, (*path, key))
            for key in first
        }
    if kinds == {list} and all(len(value) == len(first) for value in values):
        return [
            merge_batches(each, sizes, (*path, at))
            for at, each in enumerate(zip(*values, strict=True))
        ]
    if kinds == {list}:
        shortest = min(values, key=len)
        for at in range(len(shortest)):
            merge_batches([value[at] for value in values], sizes, (*path, at))
    raise DiffersError(path, " / ".join(str(value)[:60] for value in values))


def merge_modes(evaluation: Any, training: Any) -> Any:
    """Return one record of both modes; None where they differ in more than flags."""
    try:
        return _merge_modes(evaluation, training)
    except DiffersError:
        return None


def _merge_modes(a: Any, b: Any) -> Any:
    if type(a) is type(b) and a == b:
        return a
    if _is_setting(a) and _is_setting(b):
        return {"training": b, "evaluation": a}
    if isinstance(a, dict) and isinstance(b, dict) and set(a) == set(b):
        return {key: _merge_modes(a[key], b[key]) for key in a}
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return type(a)(_merge_modes(x, y) for x, y in zip(a, b, strict=True))
    raise DiffersError((), "modes")


def _is_setting(value: Any) -> bool:
    """Whether a value is a flag or number: names and references are what differs in structure."""
    return value is None or isinstance(value, bool | int | float)


def pruned(nodes: list[dict[str, Any]], outputs: Any) -> list[dict[str, Any]]:
    """Return the nodes that the outputs need, and those that change or draw something."""
    needed = {*references(outputs)}
    kept = []
    for node in reversed(nodes):
        operation = node.get("op", "")
        if node["name"] in needed or in_place(operation) or operation in RANDOM or "layer" in node:
            needed.update(references(list(node.values())))
            kept.append(node)
    return kept[::-1]
