"""Who looked at a judged task, when and why: appended by the runner itself, and committed."""

import getpass
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "looked.jsonl"


def note(output: Path, task: str, why: str, contender: str) -> None:
    """Write down that a judged task is about to be run."""
    output.mkdir(parents=True, exist_ok=True)
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task,
        "by": _user(),
        "why": why,
        "first": contender,
    }
    with (output / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def looks(output: Path) -> list[dict[str, Any]]:
    """Return all entries, in order."""
    path = output / FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _user() -> str:
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return "unknown"
