"""Which runs differ only in their seed, and what to call each such group."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlhf_service.runs.models import Run

_LONGEST_VALUE = 40
_SECTIONS = ("optimizer", "model", "dataset")


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, under one seed or several."""

    label: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The different seeds, in the order of the runs. Further runs of a seed repeat it."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))


def group(runs: Sequence[Run]) -> list[Group]:
    """Put runs that differ only in their seed together, in the order of the first of each."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run.config), []).append(run)
    members = list(groups.values())
    labels = _labels([_flat_of(runs[0]) for runs in members])
    return [Group(label, tuple(runs)) for label, runs in zip(labels, members, strict=True)]


def _flat_of(run: Run) -> dict[str, Any]:
    flat = _flat(_without_seed(run.config))
    if run.dataset_name:  # what people call an upload, in place of its id
        flat["dataset.name"] = run.dataset_name
    return flat


def _without_seed(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed"}


def _key(config: dict[str, Any]) -> str:
    return json.dumps(_without_seed(config), sort_keys=True)


def _labels(flat: Sequence[dict[str, Any]]) -> list[str]:
    """The optimizer's name, and the settings in which groups of one optimizer differ.

    What is optimized, of what and on what comes first; only where that is the same in two groups
    other settings, such as the budget, tell them apart.
    """
    labels = [str(one.get("optimizer.name", "?")) for one in flat]
    for is_wanted in (_is_main, lambda path: not _is_main(path)):
        for label in set(labels):
            same = [i for i, other in enumerate(labels) if other == label]
            paths = sorted(dict.fromkeys(p for i in same for p in flat[i]), key=_section)
            differing = [
                p for p in paths if is_wanted(p) and len({_text(flat[i].get(p)) for i in same}) > 1
            ]
            for i in same:
                parts = [f"{_short(p)}={_text(flat[i][p])}" for p in differing if p in flat[i]]
                labels[i] = " ".join([label, *parts])
    for i, label in enumerate(labels):  # what was shortened may have become equal
        if label in labels[:i]:
            labels[i] = f"{label} ({i + 1})"
    return labels


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    flat = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{path}.{key}" if path else str(key)))
    return flat


def _is_main(path: str) -> bool:
    return path.partition(".")[0] in (*_SECTIONS, "batch_size")


def _section(path: str) -> int:
    """Where a path comes in a label: the optimizer's settings first."""
    section = path.partition(".")[0]
    return _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS)


def _short(path: str) -> str:
    """``optimizer.params.lr`` → ``lr``; ``model.name`` → ``model``."""
    return path.removesuffix(".name").rpartition(".")[2]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
