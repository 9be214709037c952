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
from typing import Any

from mlhf.core import process
from mlhf.core.errors import SpecError
from mlhf.core.events import Event, EventFile, event
from mlhf.core.failures import explain
from mlhf.training.results import RunResult

# What runs each kind. Imported late: torch takes seconds to import, and may fail to.
_KINDS = {
    "train": "mlhf.training.run:train",
    "meta_train": "mlhf.meta.run:meta_train",
    "ablation": "mlhf.ablation.run:ablate",
}


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
            try:
                emit(failure(error))
                emit.sync()
            except OSError:
                return process.EXIT_CANNOT_WRITE
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
    return event("failed", error=explain(error).to_dict())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
