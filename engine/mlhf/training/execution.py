"""One attempt at a run from its start to its end, the same for runs of every kind."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlhf.core import atomic_files
from mlhf.core.errors import CheckpointError
from mlhf.core.events import event
from mlhf.core.failures import explain
from mlhf.training import checkpoint
from mlhf.training.attempt import Attempt
from mlhf.training.results import RunResult
from mlhf.training.run_loop import RunLoop

# Writes a run's artifacts into a folder; returns their names and content types.
WriteArtifacts = Callable[[Path], Iterable[tuple[str, str]]]


def execute(
    loop: RunLoop,
    attempt: Attempt,
    resume: str | Path | None,
    *,
    environment: dict[str, Any],
    data: dict[str, Any] | None,
    write_artifacts: WriteArtifacts | None = None,
) -> RunResult:
    """Run a loop to its end, or until it is asked to stop, and report how it went.

    Args:
        loop: What is run.
        attempt: Where to report and write.
        resume: The checkpoint to continue from, absolute or relative to the run folder.
        environment: What it runs on, for the ``started`` event.
        data: What it is trained on, for the same.
        write_artifacts: Called in the end, unless the loop was interrupted or there is no run
            folder.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or is of another run.
    """
    if resume is not None:
        _resume(loop, (attempt.run_dir or Path()) / resume)
    attempt.emit(
        event(
            "started",
            environment=environment,
            total_steps=loop.total_steps,
            resumed_from_step=loop.step,
            data=data,
        )
    )
    attempt.emit(loop.progress())  # after a resume fewer steps may count than were reported
    outcome = loop.run()
    loop.finish()
    result = RunResult(outcome.status, outcome.reason, loop.totals(), loop.summary())
    if outcome.status == "interrupted":
        attempt.emit(event("interrupted", step=loop.step))
        return result
    if attempt.run_dir is not None and write_artifacts is not None:
        _artifacts(attempt, attempt.run_dir / "artifacts", write_artifacts)
    attempt.emit(
        event(
            "finished",
            status=result.status,
            reason=result.reason,
            totals=result.totals,
            summary=result.summary,
            target=None if loop.target_at is None else loop.target_at.to_dict(),
        )
    )
    return result


def _resume(loop: RunLoop, path: Path) -> None:
    state = checkpoint.load(path)
    try:
        loop.load_state_dict(state)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if explain(error).type in ("memory", "device"):
            raise  # says nothing about the checkpoint
        raise CheckpointError(
            f"The checkpoint {path.name} does not fit this run, as one of another version or "
            f"configuration would not ({type(error).__name__}: {error})."
        ) from error


def _artifacts(attempt: Attempt, folder: Path, write: WriteArtifacts) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content_type in write(folder):
        size, sha256 = atomic_files.size_and_sha256(folder / name)
        attempt.emit(
            event(
                "artifact",
                name=name,
                path=f"artifacts/{name}",
                content_type=content_type,
                size=size,
                sha256=sha256,
            )
        )
