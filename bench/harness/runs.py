"""One run in a folder of its own: skipped when done, resumed when half done.

config.json    what the run is; another one in its place is refused
curve.jsonl    its points, one a line
result.json    status, totals and summary, written last
checkpoints/   while it is going on
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from bench.harness.contract import Result
from mlhf.ablation.run import Ended
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

Keep = Callable[[Mapping[str, Any]], bool]


class Go(Protocol):
    """Trains: from the checkpoint ``resume`` where there is one, until ``should_stop``."""

    def __call__(
        self, run_dir: Path, resume: str | None, on_event: OnEvent, should_stop: Callable[[], bool]
    ) -> Ended: ...


def training(config: TrainConfig) -> Go:
    """Return what carries out one training run."""

    def go(
        run_dir: Path, resume: str | None, on_event: OnEvent, should_stop: Callable[[], bool]
    ) -> Ended:
        from mlhf.training.run import train

        done = train(config, on_event, run_dir, resume, should_stop)
        return Ended(done.status, done.reason, done.totals, done.summary)

    return go


def carry_out(
    folder: Path,
    config: Mapping[str, Any],
    go: Go,
    should_stop: Callable[[], bool],
    keep: Keep = lambda values: "train_loss" in values,
) -> Result | None:
    """Return the run's result, made now where there is none yet; None if time was up.

    Args:
        folder: The run's own.
        config: What the run is, as JSON values.
        go: Does it.
        keep: Which points the curve keeps, by their values; by default evaluations.

    Raises:
        DataError: where the folder holds another run.
    """
    claim(folder, config)
    found = result_of(folder)
    if found is not None:
        return found
    if should_stop():
        return None
    resume = _newest(folder)
    _cut(folder / "curve.jsonl", -1 if resume is None else _step(Path(resume)))
    environment: dict[str, Any] = {}
    with EventFile(folder / "curve.jsonl") as curve:

        def on_event(told: Event) -> None:
            if told["type"] == "started":
                environment.update(told["environment"])
            elif told["type"] == "points":
                for point in told["points"]:
                    if keep(point["values"]):
                        curve(point)
            elif told["type"] == "checkpoint":
                curve.sync()

        ended = go(folder, resume, on_event, should_stop)
    if ended.status == "interrupted":
        return None
    result = {**vars(ended), "environment": environment}
    atomic_files.write(folder / "result.json", encode(result))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result_of(folder)


def alone(output: Path) -> IO[str]:
    """Keep other processes out of an output folder until the returned file is closed.

    Raises:
        DataError: where another process is in it.
    """
    file = open(output / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DataError(f"Another process is working in {output}.") from error
    return file


def claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the folder this run's, and refuse one that is another's."""
    folder.mkdir(parents=True, exist_ok=True)
    path, document = folder / "config.json", encode(dict(config))
    if not path.exists():
        atomic_files.write(path, document)
    elif path.read_bytes() != document:
        raise DataError(f"{folder} holds a run of another configuration; give another --output.")


def result_of(folder: Path) -> Result | None:
    """Return a finished run's result, None where there is none."""
    path = folder / "result.json"
    if not path.exists():
        return None
    found: Result = json.loads(path.read_text(encoding="utf-8"))
    return found


def curve_of(folder: Path) -> list[dict[str, Any]]:
    """Return a run's points in order, their values as floats, non-finite ones included."""
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
    """Drop the points after a checkpoint's step: the run says them again."""
    if path.exists():
        kept = [encode(point) for point, _ in read(path) if point["step"] <= step]
        atomic_files.write(path, b"".join(kept))
