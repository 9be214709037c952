"""What a kind of job is: from a request to its runs, and what comes before and after each run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from mlhf.data.info import DataInfo
from mlhf_service.context import Context
from mlhf_service.jobs.kinds.requests import JobRequest
from mlhf_service.runs.models import Run

Request = TypeVar("Request", bound=JobRequest)


class Estimate(BaseModel):
    """What validation found: nothing was created."""

    valid: Literal[True] = True
    runs: int
    parameters: int
    activations_per_sample: int
    memory_bytes: int = Field(description="Estimated peak of one run.")
    input_shape: list[int]
    outputs: int
    train_samples: int
    test_samples: int
    total_steps: int | None = Field(description="Of one run; null when time alone ends it.")
    seconds: float | None = Field(
        default=None,
        description="Of training, all runs after each other, by the pace of the last runs of the "
        "same optimizers on the same model and data set; null where there are none.",
    )


@dataclass(frozen=True)
class PlannedRun:
    """A run to be made, checked.

    Attributes:
        kind: The kind that prepares and concludes it.
        config: The engine's configuration, with defaults written out: an upgrade must not
            change a run that waits or resumes, and its record says what it was trained with.
        dataset: A built-in's name, or an upload's id; ``dataset_name`` is what people call it.
        label: What distinguishes it from the other runs of its job; None if it is the only one.
        tags: Its own, beside those of its job.
        held: Whether it must not start before its kind lets it go (``released``).
    """

    kind: str
    config: dict[str, Any]
    model: str
    dataset: str
    optimizer: str
    seed: int
    label: str | None = None
    dataset_name: str | None = None
    info: DataInfo | None = None
    meta_checkpoint_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    held: bool = False


@dataclass(frozen=True)
class Plan:
    """A request that can be run: its runs in the order they are trained, and what they need.

    Attributes:
        name: What the job is called unless its user names it.
    """

    name: str
    runs: list[PlannedRun]
    estimate: Estimate


@dataclass(frozen=True)
class Release:
    """Runs that were held back and may start.

    Attributes:
        held: They.
        best: A run whose configuration they take over, but for the seed; None: they keep their own.
        message: What to tell of it.
    """

    held: Sequence[Run]
    best: Run | None
    message: str


@dataclass(frozen=True)
class Prepared:
    """What a trainer starts with.

    Attributes:
        config: The run's configuration with the places of files filled in.
        files: Files to copy into the trainer's folder, by their name there.
    """

    config: dict[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


class JobKind(ABC, Generic[Request]):
    """One kind of job. The first half is about jobs, the second about runs of this kind.

    Attributes:
        name: The value of ``kind`` in requests and in the database.
        request: What a client sends; has a field ``kind`` with ``name`` as its only value.
        page_part: A template of the job's page for what this kind alone has to show.
        holds_back: Whether runs may wait until others of their job have ended.
    """

    name: ClassVar[str]
    request: ClassVar[type[JobRequest]]
    page_part: ClassVar[str | None] = None
    holds_back: ClassVar[bool] = False

    @abstractmethod
    def plan(self, context: Context, request: Request) -> Plan:
        """Check everything that can be checked before a worker sees it, and list the runs.

        Raises SpecError with a pointer into the request.
        """

    @abstractmethod
    def prepare(self, context: Context, config: dict[str, Any]) -> Prepared:
        """Find the files a run needs.

        Raises SpecError where a data set or a meta-checkpoint is no longer there.
        """

    def conclude(self, context: Context, run: Run) -> None:
        """Record what a run yielded, in the transaction in which it succeeds."""

    def released(
        self, session: Session, request: Request, runs: Sequence[Run], held: Sequence[Run]
    ) -> "Sequence[Release]":
        """Say which runs that are held back may start.

        Args:
            runs: All of a job of this kind that are left.
            held: Those of them that are held back.
        """
        return ()

    def with_dependencies(self, request: Request, positions: set[int]) -> set[int]:
        """Return the runs that must be made again where those at ``positions`` are."""
        return positions
