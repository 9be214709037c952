"""What tuning chose, pinned in ``settings.json``: seeds can be added without tuning again."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlhf.core import atomic_files

Pinned = dict[str, Any]  # of one entrant on one task


def load(output: Path) -> dict[str, dict[str, Pinned]]:
    """Return what is pinned, by task and entrant."""
    path = output / "settings.json"
    if not path.exists():
        return {}
    found: dict[str, dict[str, Pinned]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def pinned(output: Path, task: str, entrant: str) -> Pinned | None:
    """Return what is pinned for one entrant on one task."""
    return load(output).get(task, {}).get(entrant)


def pin(output: Path, task: str, entrant: str, values: Mapping[str, Any]) -> None:
    """Add values to what is pinned; other processes may do so for other tasks."""
    with _alone(output):
        every = load(output)
        every.setdefault(task, {}).setdefault(entrant, {}).update(values)
        text = json.dumps(every, indent=1, sort_keys=True) + "\n"
        atomic_files.write(output / "settings.json", text.encode())


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    with open(output / ".settings.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
