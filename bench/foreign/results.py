"""What the trials found, as a JSON file that grows network by network."""

import json
import platform
from pathlib import Path
from typing import Any

import torch

import mlhf
from mlhf.core.atomic_files import write


class Results:
    """The trials by name; each is written as soon as it is there, so that a run can go on.

    Args:
        path: The JSON file.
        packages: Versions of what the networks come from.
    """

    def __init__(self, path: Path, packages: dict[str, str]) -> None:
        self._path = path
        self.versions = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "mlhf": mlhf.__version__,
            **packages,
        }
        self.trials: dict[str, Any] = {}
        if path.exists():
            self.trials = json.loads(path.read_text())["trials"]

    def add(self, name: str, trial: dict[str, Any]) -> None:
        """Keep a trial."""
        self.trials[name] = trial
        self._path.parent.mkdir(parents=True, exist_ok=True)
        document = {"versions": self.versions, "trials": self.trials}
        write(self._path, (json.dumps(document, indent=1) + "\n").encode())
