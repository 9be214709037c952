"""One run in a folder of its own: skipped when finished, resumed when interrupted.

config.json    the identity of the run; a run with another one is refused
curve.jsonl    its points, one a line
result.json    status, totals and summary, written last
checkpoints/   while it is running
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from bench.harness.contract import Result
from mlhf.core import atomic_files
from mlhf.core.errors import DataError
from mlhf.core.events import (
    Event,
    EventFile,
    OnEvent,
    encode,
    read,
)
from mlhf.core.metrics import parse_number
from mlhf.training.config import TrainConfig
from mlhf.training.results import RunResult

Keep = Callable[[Mapping[str, Any]], bool]


class RunFunction(Protocol):
    """Runs from the checkpoint ``resume``, or from the start if None, until ``should_stop``."""

    def __call__(
        self, run_dir: Path, resume: str | None, on_event: OnEvent, should_stop: Callable[[], bool]
    ) -> RunResult: ...


def training(config: TrainConfig) -> RunFunction:
    """Return the function of a training run."""

    def run(
        run_dir: Path, resume: str | None, on_event: OnEvent, should_stop: Callable[[], bool]
    ) -> RunResult:
        from mlhf.training.run import train

        done = train(config, on_event, run_dir, resume, should_stop)
        return RunResult(done.status, done.reason, done.totals, done.summary)

    return run


def run_or_resume(
    folder: Path,
    config: Mapping[str, Any],
    run: RunFunction,
    should_stop: Callable[[], bool],
    keep: Keep = lambda values: "train_loss" in values,
) -> Result | None:
    """Return the result of a run, running or resuming it if need be; None if time was up.

    Args:
        folder: The folder of this run alone.
        config: The identity of the run, as JSON values.
        run: Runs or resumes it.
        should_stop: Asked after every step.
        keep: Selects the points of the curve by their values; by default the evaluations.

    Raises:
        DataError: If the folder holds another run.
    """
    claim(folder, config)
    found = read_result(folder)
    if found is not None:
        return found
    if should_stop():
        return None
    resume = _newest(folder)
    _cut(folder / "curve.jsonl", -1 if resume is None else _step(Path(resume)))
    environment: dict[str, Any] = {}
    with EventFile(folder / "curve.jsonl") as curve:

        def on_event(event: Event) -> None:
            if event["type"] == "started":
                environment.update(event["environment"])
            elif event["type"] == "points":
                for point in event["points"]:
                    if keep(point["values"]):
                        curve(point)
            elif event["type"] == "checkpoint":
                curve.sync()

        ended = run(folder, resume, on_event, should_stop)
    if ended.status == "interrupted":
        return None
    result = {**vars(ended), "environment": environment}
    atomic_files.write(folder / "result.json", encode(result))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return read_result(folder)


def exclusive_lock(output: Path) -> IO[str]:
    """Lock an output folder against other processes until the returned file is closed.

    Raises:
        DataError: If another process holds it.
    """
    file = open(output / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DataError(f"Another process is working in {output}.") from error
    return file


def claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the folder that of this run.

    Raises:
        DataError: If it is that of another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, document = folder / "config.json", encode(dict(config))
    if not path.exists():
        atomic_files.write(path, document)
    elif path.read_bytes() != document:
        raise DataError(f"{folder} holds a run of another configuration; give another --output.")


def read_result(folder: Path) -> Result | None:
    """Return the result of a run, None where it has not finished."""
    path = folder / "result.json"
    if not path.exists():
        return None
    found: Result = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Return the points of a run in order, their values as floats, non-finite ones included."""
    points = [point for point, _ in read(folder / "curve.jsonl")]
    for point in points:
        point["values"] = {name: parse_number(value) for name, value in point["values"].items()}
    return points


def _newest(folder: Path) -> str | None:
    found = sorted((folder / "checkpoints").glob("step-*.safetensors"), key=_step)
    return str(found[-1].relative_to(folder)) if found else None


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _cut(path: Path, step: int) -> None:
    """Drop the points after the step of a checkpoint: the resumed run repeats them."""
    if path.exists():
        kept = [encode(point) for point, _ in read(path) if point["step"] <= step]
        atomic_files.write(path, b"".join(kept))
