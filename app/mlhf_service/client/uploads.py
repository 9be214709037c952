"""What is uploaded: files, their format, DataFrames; and how far the sending is."""

import io
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

from mlhf_service.client.errors import ServiceError

OnUpload = Callable[[str, int, int], None]  # stage, done, of so many

_FORMATS = {
    ".csv": "table",
    ".tsv": "table",
    ".parquet": "table",
    ".npz": "npz",
    ".zip": "image_folder",
    ".txt": "text",
}


class Upload:
    """Opened files to send, and a thread that asks the service how far it is once it has them.

    Attributes:
        fields: Of the form, for the progress to be found.
        parts: The files, as httpx takes them.
    """

    def __init__(
        self, files: list[Path], get: Callable[[str], Any], on_progress: OnUpload | None
    ) -> None:
        self._files = files
        self._get = get
        self._on_progress = on_progress
        self._id = secrets.token_hex(16)
        self._ended = threading.Event()
        self._opened = ExitStack()
        self._sent = Sent(sum(path.stat().st_size for path in files), on_progress)
        self.fields = {} if on_progress is None else {"progress_id": self._id}
        self.parts: list[tuple[str, tuple[str, IO[bytes]]]] = []

    def __enter__(self) -> "Upload":
        for path in self._files:
            file = self._opened.enter_context(CountedFile(path, self._sent))
            self.parts.append(("file", (path.name, cast(IO[bytes], file))))
        if self._on_progress is not None:
            thread = threading.Thread(target=self._watch, args=(self._on_progress,), daemon=True)
            thread.start()
            self._opened.callback(thread.join)
            self._opened.callback(self._ended.set)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _watch(self, on_progress: OnUpload) -> None:
        while not self._ended.wait(0.5):
            if not self._sent.all:
                continue
            try:
                found = self._get(f"/v1/datasets/progress/{self._id}")
            except ServiceError:  # one that cannot say
                continue
            if found["stage"] != "waiting" and not self._ended.is_set():
                on_progress(found["stage"], found["done"], found["total"])


class Sent:
    """How many bytes of an upload have been read to be sent."""

    def __init__(self, total: int, on_progress: OnUpload | None) -> None:
        self._total = total
        self._done = 0
        self._on_progress = on_progress

    @property
    def all(self) -> bool:
        return self._done >= self._total

    def add(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress("sending", self._done, self._total)


class CountedFile(io.FileIO):
    """A file that says how much of it was read."""

    def __init__(self, path: Path, sent: Sent) -> None:
        super().__init__(path)
        self._sent = sent

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(-1 if size is None else size) or b""
        self._sent.add(len(content))
        return content


def files_of(source: Any, folder: Path) -> list[Path]:
    """The files to upload: a path, several, or a DataFrame, which is written into ``folder``."""
    if hasattr(source, "to_csv"):
        return [_written(source, folder)]
    many = not isinstance(source, str | Path) and isinstance(source, Iterable)
    paths = [Path(one).expanduser() for one in (source if many else [source])]
    for path in paths:
        if not path.is_file():
            raise ServiceError(
                f"{path} is no file"
                + (": upload a zip of the folder" if path.is_dir() else "; is its path right?")
            )
    return paths


def event_files(source: Any) -> list[Path]:
    """The event files of one run: those given, and those in a folder given."""
    many = not isinstance(source, str | Path) and isinstance(source, Iterable)
    given = [Path(one).expanduser() for one in (source if many else [source])]
    found: list[Path] = []
    for path in given:
        inside = sorted(path.rglob("*tfevents*")) if path.is_dir() else [path]
        if not inside:
            raise ServiceError(f"{path} holds no event files (*tfevents*)")
        found += inside
    return files_of(found, Path())


def format_of(paths: list[Path]) -> str:
    """The format by the files' names. Raises ServiceError where they do not tell."""
    if len(paths) > 1 and all(path.suffix == ".parquet" for path in paths):
        return "hf_images"
    found = {_FORMATS.get(path.suffix.lower()) for path in paths}
    if len(found) == 1 and (format := found.pop()) is not None:
        return format
    raise ServiceError(
        f"{', '.join(path.name for path in paths[:3])}: the name does not tell the format; give "
        "format=, one of npz, image_folder, coco, hf_images, table, text"
    )


def name_of(source: Any, files: list[Path]) -> str:
    """What to call a data set that was given no name."""
    return "table" if hasattr(source, "to_csv") else files[0].stem


def _written(frame: Any, folder: Path) -> Path:
    """A DataFrame as Parquet, which keeps its types; as CSV where pyarrow cannot."""
    path = folder / "table.parquet"
    try:
        frame.to_parquet(path, index=False)
    except Exception:  # no pyarrow; or columns of mixed types
        path.unlink(missing_ok=True)
        path = folder / "table.csv"
        frame.to_csv(path, index=False)
    return path
