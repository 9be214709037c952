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
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from types import FrameType
from typing import Any

from mlhf.core import process
from mlhf.core.confinement import Report, confine
from mlhf.core.errors import SpecError
from mlhf.core.events import Event, EventFile, event
from mlhf.core.failures import explain
from mlhf.core.imports import importing
from mlhf.training.results import RunResult

# What runs each kind. Imported late: torch takes seconds to import, and may fail to.
_KINDS = {
    "train": "mlhf.training.run:train",
    "meta_train": "mlhf.meta.run:meta_train",
    "ablation": "mlhf.ablation.run:ablate",
}
# How Python and oneDNN say that an rlimit has refused them memory: a thread needs a stack.
_REFUSED_MEMORY = ("can't start new thread", "could not create a", "could not execute a primitive")


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
    process.set_name(process.TRAINER)
    report = Report()
    with EventFile(run_dir / "events.jsonl") as emit:
        try:
            if "confinement" in run:  # before there are threads
                report = confine(run["confinement"], [run_dir, *_folders(run["config"])])
            process.die_with_parent(expected_parent_pid=run.get("parent_pid"))
            process.keep_freed_memory()
            result = _function_of(run.get("kind", "train"))(
                run["config"],
                on_event=_reporting(emit, report),
                run_dir=run_dir,
                resume=run.get("resume"),
                should_stop=stop,
                checkpoint_seconds=run.get("checkpoint_seconds", 15.0),
                data_cache=_data_cache(run.get("data_cache")),
            )
        except BaseException as error:
            traceback.print_exc()
            try:
                emit(failure(error, report))
                emit.sync()
            except OSError:
                return process.EXIT_CANNOT_WRITE
            return process.EXIT_FAILED
        emit.sync()
        if result.status == "interrupted":
            return process.EXIT_INTERRUPTED
        return process.EXIT_OK


def _data_cache(described: dict[str, Any] | None) -> Any:
    if described is None:
        return None
    from mlhf.data.cache import DataCache  # imports torch

    return DataCache(**{**described, "folder": Path(described["folder"])})


def _function_of(kind: str) -> Callable[..., RunResult]:
    if kind not in _KINDS:
        raise SpecError("/kind", f"unknown kind of run {kind!r}; known: {', '.join(_KINDS)}")
    with importing():
        function: Callable[..., RunResult] = resolve_name(_KINDS[kind])
    return function


def _folders(config: dict[str, Any]) -> list[Path]:
    """What a run must be able to reach: the interpreter, and its data sets."""
    tasks = [config, *config.get("tasks", [])]
    roots = [task["dataset"].get("root") for task in tasks if "dataset" in task]
    return [Path(sys.prefix), *(Path(root) for root in roots if root)]


def _reporting(emit: Callable[[Event], None], report: Report) -> Callable[[Event], None]:
    """Add to the environment of a run what its process is confined to."""

    def on_event(event: Event) -> None:
        if event["type"] == "started":
            environment = {**event["environment"], "confinement": report.to_dict()}
            event = {**event, "environment": environment}
        emit(event)

    return on_event


def failure(error: BaseException, report: Report | None = None) -> Event:
    """Return the ``failed`` event for an error, in words for whoever started the run."""
    if (
        report is not None
        and report.memory_limit_by == "rlimit"
        and str(error).startswith(_REFUSED_MEMORY)
    ):
        error = MemoryError()
    found = explain(error)
    if report is not None and report.memory_limit_bytes is not None and found.type == "memory":
        limit = f"Its limit here is {report.memory_limit_bytes / 2**30:.1f} GiB, from the estimate."
        found = replace(found, detail=f"{found.detail} {limit}")
    return event("failed", error=found.to_dict())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
