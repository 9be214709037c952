"""The settings that tuning chose, pinned in ``settings.json``: more seeds need no more tuning."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlhf.core import atomic_files

Pinned = dict[str, Any]  # of one contender on one task


def load(output: Path) -> dict[str, dict[str, Pinned]]:
    """Return all that is pinned, by task and contender."""
    path = output / "settings.json"
    if not path.exists():
        return {}
    found: dict[str, dict[str, Pinned]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def pinned(output: Path, task: str, contender: str) -> Pinned | None:
    """Return what is pinned for one contender on one task."""
    return load(output).get(task, {}).get(contender)


def pin(output: Path, task: str, contender: str, values: Mapping[str, Any]) -> None:
    """Add values to what is pinned. Other processes may do so at the same time."""
    with _exclusive_lock(output):
        every = load(output)
        every.setdefault(task, {}).setdefault(contender, {}).update(values)
        text = json.dumps(every, indent=1, sort_keys=True) + "\n"
        atomic_files.write(output / "settings.json", text.encode())


@contextmanager
def _exclusive_lock(output: Path) -> Iterator[None]:
    with open(output / ".settings.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
