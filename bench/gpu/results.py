"""Results of one part as a JSON file that grows entry by entry, so that a run can go on."""

import json
import platform
from pathlib import Path
from typing import Any

import torch

import mlhf
from mlhf.core.atomic_files import write


class Results:
    """The entries of one part, by name; each is written as soon as it is there.

    A file of another machine or version is begun anew: its numbers do not compare.

    Args:
        path: The JSON file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.machine = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
            "mlhf": mlhf.__version__,
        }
        self.entries: dict[str, Any] = {}
        if path.exists():
            found = json.loads(path.read_text())
            if found["machine"] == self.machine:
                self.entries = found["entries"]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def add(self, name: str, entry: Any) -> None:
        """Keep an entry."""
        self.entries[name] = entry
        self._path.parent.mkdir(parents=True, exist_ok=True)
        document = {"machine": self.machine, "entries": self.entries}
        write(self._path, (json.dumps(document, indent=1) + "\n").encode())
