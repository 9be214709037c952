"""The trainer process: ``python -m mlhf.runner RUN_DIR``.

Reads RUN_DIR/run.json, whose ``kind`` is ``train`` (the default), ``meta_train`` or ``ablation``.
Writes RUN_DIR/events.jsonl, checkpoints/ and artifacts/. A ``failed`` event says in a sentence
what went wrong; the stack trace goes to stderr.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from types import FrameType
from typing import Any, Literal

from mlhf.core import process
from mlhf.core.errors import DataError, SpecError
from mlhf.core.events import Event, EventFile, event
from mlhf.core.optional import MissingPackageError
from mlhf.training.results import RunResult

# What runs each kind. Imported late: torch takes seconds to import, and may fail to.
_KINDS = {
    "train": "mlhf.training.run:train",
    "meta_train": "mlhf.meta.run:meta_train",
    "ablation": "mlhf.ablation.run:ablate",
}

ErrorType = Literal["data", "spec", "memory", "internal"]


class _Stop:
    """Whether the process was asked to end, by SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self._asked = False

    def install(self) -> None:
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._handle)

    def __call__(self) -> bool:
        return self._asked

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._asked = True


def main(arguments: list[str]) -> int:
    """Run the attempt that a folder describes; returns the process's exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m mlhf.runner RUN_DIR\n")
        return 2
    stop = _Stop()
    stop.install()
    run_dir = Path(arguments[0])
    run: dict[str, Any] = json.loads((run_dir / "run.json").read_text())
    process.die_with_parent(expected_parent_pid=run.get("parent_pid"))
    process.keep_freed_memory()
    with EventFile(run_dir / "events.jsonl") as emit:
        try:
            result = _function_of(run.get("kind", "train"))(
                run["config"],
                on_event=emit,
                run_dir=run_dir,
                resume=run.get("resume"),
                should_stop=stop,
                checkpoint_seconds=run.get("checkpoint_seconds", 15.0),
            )
        except BaseException as error:
            traceback.print_exc()
            emit(failure(error))
            emit.sync()
            return process.EXIT_FAILED
        emit.sync()
        if result.status == "interrupted":
            return process.EXIT_INTERRUPTED
        return process.EXIT_OK


def _function_of(kind: str) -> Callable[..., RunResult]:
    if kind not in _KINDS:
        raise SpecError("/kind", f"unknown kind of run {kind!r}; known: {', '.join(_KINDS)}")
    function: Callable[..., RunResult] = resolve_name(_KINDS[kind])
    return function


def failure(error: BaseException) -> Event:
    """Return the ``failed`` event for an error, in words for whoever started the run."""
    kind, title, detail = _explain(error)
    return event("failed", error={"type": kind, "title": title, "detail": detail})


def _explain(error: BaseException) -> tuple[ErrorType, str, str]:
    if isinstance(error, SpecError):
        where = f" (at {error.pointer})" if error.pointer else ""
        return "spec", "The configuration cannot be run", f"{error.message}{where}"
    if isinstance(error, DataError):
        return "data", "The data cannot be read", str(error)
    if isinstance(error, MissingPackageError):
        return "internal", "A package is missing", str(error)
    if _is_memory(error):
        return (
            "memory",
            "Not enough memory",
            "The run needs more memory than there is. A smaller network or batch may fit.",
        )
    if type(error).__name__ == "CurvatureError":
        return "spec", "This network has no Gauss-Newton product", str(error)
    detail = f"The engine failed with {type(error).__name__}. The run's log has the details."
    return "internal", "The run failed", detail


def _is_memory(error: BaseException) -> bool:
    # By name, since torch may not be importable when this is asked.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
