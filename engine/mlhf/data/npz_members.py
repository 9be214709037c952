"""Which arrays of an .npz file are inputs, targets and weights, and of which split."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlhf.core.errors import DataError, SpecError
from mlhf.data import files
from mlhf.data.npz_file import Member, listed, member
from mlhf.data.params import HEAD_NAME, NpzParams

_MAX_AXIS = 65_536
_MOST_HEADS = 64


@dataclass(frozen=True)
class SplitMembers:
    """The arrays of a split.

    Attributes:
        x: Inputs.
        y: Targets by name; a single one has the name ``""``.
        weights: Of the samples.
    """

    x: Member
    y: dict[str, Member]
    weights: Member | None = None

    def __iter__(self) -> Iterator[Member]:
        yield self.x
        yield from self.y.values()
        if self.weights is not None:
            yield self.weights


@dataclass(frozen=True)
class Members:
    """The arrays of both splits; ``test`` is None where it is to be split off."""

    train: SplitMembers
    test: SplitMembers | None
    unused: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[SplitMembers, ...]:
        """Those that the file has."""
        return (self.train,) if self.test is None else (self.train, self.test)


def open_members(params: NpzParams, root: Path | None) -> Members:
    """Read the headers of all arrays, and check that they fit together.

    Raises:
        DataError: arrays are missing, too large, or do not fit each other.
        SpecError: a parameter names an array that is not there.
    """
    path = files.only_file(root, (".npz",))
    entries = listed(path)
    names = {name.removesuffix(".npy") for name in entries if name.endswith(".npy")}

    def split(suffix: str) -> SplitMembers:
        x = member(path, entries[f"x{suffix}.npy"])
        y = {
            head: _checked(x, member(path, entries[f"{name}.npy"]))
            for head, name in _targets(names, suffix).items()
        }
        weights = None
        if params.sample_weights is not None:
            name = f"{params.sample_weights}{suffix}"
            if f"{name}.npy" not in entries:
                raise SpecError(
                    "/params/sample_weights",
                    f"{path.name}: there is no array {name}; there are {_shown(names)}",
                )
            weights = _checked(x, member(path, entries[f"{name}.npy"]))
        return SplitMembers(x, y, weights)

    if "x_train" in names and _targets(names, "_train"):
        train = split("_train")
        has = "x_test" in names, bool(_targets(names, "_test"))
        test = split("_test") if all(has) else None
        if test and test.x.shape[1:] != train.x.shape[1:]:
            raise DataError(f"{path.name}: train and test arrays differ in shape")
        if test and set(test.y) != set(train.y):
            raise DataError(
                f"{path.name}: the targets of train are {', '.join(train.y)}, those of test "
                f"{', '.join(test.y)}"
            )
        if any(has) and test is None:
            raise DataError(f"{path.name}: has only one of x_test and y_test")
    elif "x" in names and _targets(names, ""):
        train, test = split(""), None
    else:
        raise DataError(
            f"{path.name}: needs arrays x_train and y_train (and x_test, y_test), or x and y; "
            f"it has: {_shown(names)}"
        )
    held = [each for members in (train, test) if members for each in members]
    total = sum(math.prod(m.shape) * max(m.dtype.itemsize, 4) for m in held)
    if total > files.MAX_HELD_BYTES:
        raise DataError(
            f"{path.name}: its arrays take {total / 2**30:.1f} GiB; at most "
            f"{files.MAX_HELD_BYTES // 2**30} GiB are read"
        )
    used = {each.name for each in held}
    return Members(train, test, tuple(sorted(names - used)))


def _targets(names: set[str], suffix: str) -> dict[str, str]:
    """The arrays of targets by head: y alone, or y_<head> of several."""
    if f"y{suffix}" in names:
        return {"": f"y{suffix}"}
    found = {}
    for name in sorted(names):
        if not name.startswith("y_") or not name.endswith(suffix):
            continue
        head = name[2 : len(name) - len(suffix)]
        if not suffix and head.rpartition("_")[2] in ("train", "test"):
            continue
        if head and HEAD_NAME.fullmatch(head):
            found[head] = name
    return found if len(found) <= _MOST_HEADS else {}


def _checked(x: Member, y: Member) -> Member:
    """Check one array of a split beside its inputs."""
    if len(x.shape) < 2 or len(y.shape) < 1:
        raise DataError(f"{x.where}: inputs need at least 2 axes, targets 1")
    if x.shape[0] != y.shape[0]:
        raise DataError(f"{x.where} has {x.shape[0]} rows, but {y.name} has {y.shape[0]}")
    if 0 in x.shape:
        raise DataError(f"{x.where}: empty, of shape {x.shape}")
    if max(x.shape[1:]) > _MAX_AXIS:
        raise DataError(f"{x.where}: shape {x.shape} has an axis above {_MAX_AXIS}")
    return y


def _shown(names: set[str]) -> str:
    return ", ".join(sorted(names))[:500] or "none"
