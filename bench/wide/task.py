"""What a task of the wide benchmark is: data it writes, a network it traces, a horizon."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlhf.core.budget import Budget
from mlhf.core.config import Component, DatasetSource
from mlhf.training.config import Evaluation, TrainConfig

Array = npt.NDArray[Any]
Version = Literal["development", "judged"]
VERSIONS: tuple[Version, ...] = ("development", "judged")
Size = Literal["tiny", "cpu"]

# Writes a task's data into a folder, from that of the real data sets.
Write = Callable[[Path, Path], None]

EVALUATIONS = 25  # of a run, beside that of the start
_MEASURED = 1000  # samples of each split


@dataclass(frozen=True)
class WideTask:
    """One task.

    Attributes:
        family: What it is an example of.
        version: ``development``: may be looked at; ``judged``: only judged.
        model: Makes the network as data; imports torch.
        dataset: Its family and parameters.
        steps: How long it is trained.
        batch_size: In samples; that of ``train_samples``: a full batch.
        train_samples: How many there are.
        write: Writes its data; None for the product's own data sets.
        needs: Folders of real data that it reads; of a data set without ``write``, its root.
    """

    family: str
    version: Version
    model: Callable[[], Component]
    dataset: Component
    steps: int
    batch_size: int
    train_samples: int
    write: Write | None = None
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.family}-{self.version}"

    @property
    def full_batch(self) -> bool:
        """Whether every step sees all samples."""
        return self.batch_size >= self.train_samples

    def missing(self, data: Path) -> list[str]:
        """Return the folders of real data that are not there."""
        return [name for name in self.needs if not (data / name).exists()]

    def source(self, data: Path, cache: Path) -> DatasetSource:
        """Return its data set, its file written if it is not there yet.

        Args:
            data: Holds one folder for each real data set.
            cache: Where made files are kept.
        """
        root = data / self.needs[0] if self.needs else None
        if self.write is not None:
            root = cache / self.name
            if not root.exists():
                cache.mkdir(parents=True, exist_ok=True)
                made = Path(tempfile.mkdtemp(dir=cache))
                self.write(data, made)
                with suppress(OSError):  # another process was first
                    made.rename(root)
        return DatasetSource(**self.dataset.model_dump(), root=None if root is None else str(root))

    def config(
        self, data: Path, cache: Path, optimizer: str, params: Mapping[str, Any], seed: int
    ) -> TrainConfig:
        """Return the configuration of a run. Raises DataError where real data are missing."""
        steps_per_epoch = max(1, -(-self.train_samples // self.batch_size))
        every = self.steps / EVALUATIONS / steps_per_epoch
        return TrainConfig(
            model=_component(self.model),
            dataset=self.source(data, cache),
            optimizer=Component(name=optimizer, params=dict(params)),
            budget=Budget(steps=self.steps),
            batch_size=self.batch_size,
            seed=seed,
            evaluation=Evaluation(every_epochs=every, max_samples=_MEASURED),
            device="cpu",
            threads=1,
        )


@cache
def _component(make: Callable[[], Component]) -> Component:
    """Return the network that a task makes, traced once a process."""
    return make()


def arrays(make: Callable[[Path], Mapping[str, Array]]) -> Write:
    """Return what writes an ``.npz`` file of the arrays that ``make`` makes, by their names."""

    def write(data: Path, folder: Path) -> None:
        np.savez_compressed(folder / "data.npz", **dict(make(data)))  # type: ignore[arg-type]

    return write


def npz(**params: Any) -> Component:
    """Return a data set of the ``.npz`` file that a task writes."""
    return Component(name="npz", params=params)


def traced(module: Any, example: Any) -> Component:
    """Return a module as data, with fresh weights for each seed."""
    from mlhf.models.graph.trace import trace

    return Component(name="graph", params={"graph": trace(module, example).to_json()})
