"""Errors of Arrow on broken files, raised as DataError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra

with from_extra("data"):
    import pyarrow as pa


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise DataError with the name of the file if Arrow cannot read it, or it is not UTF-8."""
    try:
        yield
    except MemoryError:  # Arrow's own is one too: the file may be fine
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = (str(error).splitlines() or [""])[0][:300]
        raise DataError(f"{path.name}: cannot be read: {message}") from None
