"""What Arrow raises on broken files, as DataError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra

with from_extra("data"):
    import pyarrow as pa


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say which file is broken. Names inside it that are not UTF-8 count as broken too."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = (str(error).splitlines() or [""])[0][:300]
        raise DataError(f"{path.name}: cannot be read: {message}") from None
