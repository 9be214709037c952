"""Tasks, settings and experiments as data. Needs no torch.

An experiment is a list of runs and a report. Each run has a folder of its own and is skipped
once its result is there. The report covers whatever results there are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from mlhf.core.budget import Budget
from mlhf.core.config import Component
from mlhf.training.config import Evaluation

Scale = Literal["tiny", "cpu", "full"]
Result = dict[str, Any]

# Folders whose names differ from those of the data sets.
_FOLDERS = {"text": "tinyshakespeare"}


@dataclass(frozen=True)
class Task:
    """What is trained, and for how long.

    Attributes:
        name: Part of folder and file names.
        batch_size: In samples; a setting may override it.
    """

    name: str
    model: Component
    dataset: Component
    budget: Budget
    batch_size: int
    evaluation: Evaluation = field(default_factory=lambda: Evaluation(samples="all"))


@dataclass(frozen=True)
class Setting:
    """An optimizer as it is compared.

    Attributes:
        name: Its name in tables.
        optimizer: Its registered name.
        params: Fixed parameters.
        grid: Choices of further parameters. Each is run once on the tuning seed; the one with
            the lowest final training loss is run on the other seeds.
        batch_size: In samples, if not the task's.
    """

    name: str
    optimizer: str
    params: Mapping[str, Any] = field(default_factory=dict)
    grid: Sequence[Mapping[str, Any]] = ()
    batch_size: int | None = None


@dataclass(frozen=True)
class Context:
    """Where and how experiments run.

    Attributes:
        output: The folder of runs and report.
        seeds: The seeds that are judged.
        data: Holds one folder for each data set; None where none is needed.
        only: Names of settings to run; all of them when empty.
        meta_checkpoint: That of the learned optimizers, ``default`` or a path.
        stop: Asked after every step; true once time is up.
        log: Receives progress, a line at a time.
    """

    output: Path
    seeds: Sequence[int]
    data: Path | None = None
    only: Sequence[str] = ()
    meta_checkpoint: str = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = 1
    stop: Callable[[], bool] = lambda: False
    log: Callable[[str], None] = lambda _: None

    def root(self, dataset: Component) -> str | None:
        """Return the folder of a data set's files, None if it needs none."""
        from mlhf.data.specs import DATASETS

        if self.data is None or not DATASETS[dataset.name].needs_root:
            return None
        return str(self.data / _FOLDERS.get(dataset.name, dataset.name))


class Experiment(Protocol):
    """A list of runs and a report."""

    @property
    def title(self) -> str: ...

    def settings(self) -> Sequence[str]:
        """Return the names that ``Context.only`` may hold."""
        ...

    def run(self, context: Context) -> bool:
        """Run what is left to run; return whether all is done, False where time was up."""
        ...

    def report(self, context: Context) -> list[Path]:
        """Write tables and figures of the finished runs; return their paths."""
        ...
