"""Read all of an upload once. What is not small is read in a process of its own.

There it neither keeps the API from answering nor takes more memory or time than is allowed:
a file of some kilobytes can hold millions of rows.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from mlhf.core import bounded
from mlhf.core.errors import DataError, SpecError
from mlhf.data import specs
from mlhf.data.report import Progress

_SMALL_BYTES = 256 * 2**10
_SMALL_CELLS = 1_000_000


@dataclass(frozen=True)
class Examined:
    """What was found: JSON values, as they are stored.

    Attributes:
        params: Those given, and those that the files settled.
        info: A ``mlhf.data.info.DataInfo``.
        report: A ``mlhf.data.report.Report``.
    """

    params: dict[str, Any]
    info: dict[str, Any]
    report: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class Bounds:
    """What an examination may take."""

    memory_bytes: int
    seconds: float


def examine(
    format: str,
    params: dict[str, Any],
    folder: Path,
    bounds: Bounds,
    progress: Progress | None = None,
) -> Examined:
    """Check the files in ``folder``. Raises SpecError and DataError."""
    if _is_small(folder):
        return _examine(format, params, folder, progress)
    return _examine_apart(format, params, folder, bounds, progress)


def _examine(
    format: str, params: dict[str, Any], folder: Path, progress: Progress | None
) -> Examined:
    found = specs.inspect(format, params, folder, progress)
    settled = specs.DATASETS.parse(format, {**found.settled, **params})
    return Examined(
        params=settled.model_dump(mode="json", exclude_unset=True),
        info=found.info.to_dict(),
        report=found.report.model_dump(mode="json"),
        sha256=specs.digest(format, params, folder),
    )


def _is_small(folder: Path) -> bool:
    """Whether neither the files nor what they unpack to are large."""
    size = 0
    for path in folder.rglob("*"):
        if path.is_file():
            size += path.stat().st_size
            if size > _SMALL_BYTES or (path.suffix == ".parquet" and not _is_short(path)):
                return False
    return True


def _is_short(parquet: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        facts = pq.read_metadata(parquet)
    except (pa.ArrowException, OSError, ValueError):
        return True  # it is refused at once
    return bool(facts.num_rows * max(1, facts.num_columns) <= _SMALL_CELLS)


def _examine_apart(
    format: str, params: dict[str, Any], folder: Path, bounds: Bounds, progress: Progress | None
) -> Examined:
    with subprocess.Popen(
        bounded.command(__name__, bounds.memory_bytes),
        env=bounded.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(bounds.seconds, process.kill)
        timer.start()
        try:
            task = {"format": format, "params": params, "folder": str(folder)}
            process.stdin.write(json.dumps(task).encode())
            process.stdin.close()
            result = _result(process.stdout, progress)
        except BrokenPipeError:
            result = None
        finally:
            timer.cancel()
            process.kill()
    if result is None:
        raise DataError(
            f"the files could not be checked within {bounds.memory_bytes / 2**30:.1f} GiB of "
            f"memory and {bounds.seconds:.0f} seconds; send fewer rows or smaller images"
        )
    if "spec" in result:
        raise SpecError(*result["spec"])
    if "data" in result:
        raise DataError(result["data"])
    return Examined(**result["found"])


def _result(lines: IO[bytes], progress: Progress | None) -> dict[str, Any] | None:
    """The last word of the process; None where it died without one."""
    for line in lines:
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:  # cut off
            return None
        if "progress" not in said:
            return said
        if progress is not None:
            progress(*said["progress"])
    return None


def main() -> None:
    """The process: a task on its standard input, JSON lines on its standard output."""
    bounded.enter_bounds()
    task = json.load(sys.stdin)
    say = _speaker(sys.stdout)
    try:
        found = _examine(
            task["format"],
            task["params"],
            Path(task["folder"]),
            lambda done, total: say({"progress": [done, total]}),
        )
        say({"found": asdict(found)})
    except SpecError as error:
        say({"spec": [error.pointer, error.message]})
    except DataError as error:
        say({"data": str(error)})


def _speaker(out: IO[str]) -> Callable[[dict[str, Any]], None]:
    def say(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    return say


if __name__ == "__main__":
    main()
