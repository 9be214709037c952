"""Images and labels in Parquet files, as the Hugging Face Hub stores them."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra
from mlhf.data.arrays import Array
from mlhf.data.arrow import reading
from mlhf.data.images import map_in_threads

with from_extra("data"):
    import pyarrow as pa
    import pyarrow.parquet as pq

# A dictionary page can repeat one large value in every row, so a batch of n rows may take
# n times the size of its row group; n is chosen so that this stays below the bound.
_BATCH_BYTES, _BATCH_ROWS = 256 * 2**20, 256
MAX_IMAGE_BYTES = 16 * 2**20
# No image is stored in less; a file with more rows repeats one to keep its reader busy.
_MIN_ROW_BYTES = 16


@dataclass(frozen=True)
class ParquetImages:
    """One split: its files, and the columns of images and labels."""

    files: tuple[Path, ...]
    image: str
    label: str
    nested: bool
    counts: tuple[int, ...]
    class_names: tuple[str, ...] | None
    columns: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        files: list[Path],
        image: str | None = None,
        label: str | None = None,
        whole: bool = True,
    ) -> "ParquetImages":
        """Read the files' metadata. Raises DataError unless they agree on the columns.

        Args:
            whole: Only whole numbers are labels, by default the first column of them.
        """
        schemas, counts = [], []
        for path in files:
            with _opened(path) as file, reading(path):
                schemas.append(file.schema_arrow)
                _ = schemas[-1].names  # raises where they are not UTF-8
                counts.append(file.metadata.num_rows)
        schema, where = schemas[0], files[0].name
        image = _column(schema, image, where, "image", _is_image)
        if whole:
            label = _column(schema, label, where, "label", _is_whole)
        else:
            label = _column(schema, label or _label_column(schema, where), where, "label", is_label)
        for path, other in zip(files, schemas, strict=True):
            if any(
                name not in other.names or other.field(name).type != schema.field(name).type
                for name in (image, label)
            ):
                raise DataError(f"{path.name}: its columns differ from those of {where}")
        if sum(counts) == 0:
            raise DataError(f"{where}: no rows")
        if sum(counts) * _MIN_ROW_BYTES > sum(path.stat().st_size for path in files):
            raise DataError(f"{where}: {sum(counts)} rows are more than its size has room for")
        nested = pa.types.is_struct(schema.field(image).type)
        names = _class_names(schema, label)
        return cls(
            tuple(files), image, label, nested, tuple(counts), names, tuple(map(str, schema.names))
        )

    @property
    def count(self) -> int:
        """Number of rows in all files."""
        return sum(self.counts)

    def labels(self) -> Array:
        """Return the label of every row."""
        parts = []
        for path in self.files:
            with _opened(path) as file, reading(path):
                column = file.read(columns=[self.label]).column(0)
            if column.null_count:
                raise DataError(f"{path.name}: column {self.label!r} has missing labels")
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            parts.append(column.to_numpy())
        return np.concatenate(parts)

    def decoded(self, rows: Array, decode: Callable[[bytes, str], Array]) -> Iterator[Array]:
        """Decode the images of some rows.

        Args:
            rows: Row numbers over all files, ascending.
            decode: Maps the encoded image and a description of it to an array.

        Yields:
            Stacks of decoded images, in order.
        """
        return map_in_threads(lambda item: decode(*item), self.encoded(rows))

    def encoded(self, rows: Array) -> Iterator[tuple[bytes, str]]:
        """Yield some encoded images as they are stored, each with what it is."""
        start = 0
        for path, count in zip(self.files, self.counts, strict=True):
            mine = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + count)]
            if len(mine):
                yield from self._encoded_of(path, mine - start)
            start += count

    def _encoded_of(self, path: Path, rows: Array) -> Iterator[tuple[bytes, str]]:
        column = f"{self.image}.bytes" if self.nested else self.image
        with _opened(path) as file:
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                stop = start + count
                mine = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
                if len(mine):
                    batches = _batches(file, group, column, path)
                    yield from self._picked(batches, mine - start, f"{path.name}, row {{}}", start)
                start = stop

    def _picked(
        self, batches: Iterator[pa.RecordBatch], rows: Array, where: str, offset: int
    ) -> Iterator[tuple[bytes, str]]:
        start = 0
        for batch in batches:
            column = batch.column(0)
            if self.nested:
                column = column.field(0)
            stop = start + len(column)
            for row in rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]:
                value = column[int(row) - start].as_py()
                name = where.format(offset + int(row))
                if value is None:
                    raise DataError(
                        f"{name}: no image; store the images' bytes in the file, not only paths"
                    )
                if len(value) > MAX_IMAGE_BYTES:
                    raise DataError(f"{name}: the image is larger than 16 MiB")
                yield value, name
            start = stop


def _batches(file: pq.ParquetFile, group: int, column: str, path: Path) -> Iterator[pa.RecordBatch]:
    size = max(1, file.metadata.row_group(group).total_byte_size)
    rows = int(min(max(_BATCH_BYTES // size, 1), _BATCH_ROWS))
    batches = file.iter_batches(batch_size=rows, row_groups=[group], columns=[column])
    while True:
        with reading(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _opened(path: Path) -> pq.ParquetFile:
    with reading(path):
        return pq.ParquetFile(path, memory_map=False)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _is_binary(f.type) for f in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def is_label(kind: pa.DataType) -> bool:
    """Whether values can name classes: whole numbers, text, true or false, decimal numbers."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        pa.types.is_integer,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_boolean,
        pa.types.is_floating,
    )
    return any(test(kind) for test in tests)


# Names of columns of labels, the likeliest first; and of columns that are never meant.
_LABELS = ("label", "labels", "class", "category", "target", "y", "fine_label", "class_label")
_NO_LABELS = re.compile(
    r"(.*_)?(id|ids|idx|index|uuid|guid|key|path|file|filename|file_name|url|width|height|split)"
    r"|__.*__",
    re.IGNORECASE,
)


def _label_column(schema: pa.Schema, where: str) -> str | None:
    """Return the column of labels; None where no column can be it. Raises DataError: which?"""
    fitting: list[str] = [field.name for field in schema if is_label(field.type)]
    declared = [name for name in fitting if _class_names(schema, name) is not None]
    if len(declared) == 1:
        return declared[0]
    lower = {name.lower(): name for name in reversed(declared or fitting)}
    named = [lower[name] for name in _LABELS if name in lower]
    if named:
        return named[0]
    likely = [name for name in fitting if not _NO_LABELS.fullmatch(name)]
    if len(likely) == 1:
        return likely[0]
    if not fitting:
        return None
    raise DataError(
        f"{where}: which column holds the labels? Set `label_column` to one of: "
        f"{', '.join(likely or fitting)[:500]}"
    )


def _column(
    schema: pa.Schema,
    name: str | None,
    where: str,
    what: str,
    fits: Callable[[pa.DataType], bool],
) -> str:
    """Return the asked column if it fits, else the one named ``what``, else the first that fits."""
    if name is None:
        fitting = [f.name for f in schema if fits(f.type)]
        name = what if what in fitting else next(iter(fitting), None)
    elif name in schema.names and not fits(schema.field(name).type):
        raise DataError(f"{where}: column {name!r} is {schema.field(name).type}, not {what}s")
    if name is None or name not in schema.names:
        raise DataError(
            f"{where}: no {what} column; it has: {', '.join(schema.names)[:500] or 'none'}"
        )
    return name


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """Return the names of a ClassLabel from the Hub's own metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if isinstance(names, list) and all(isinstance(n, str) for n in names):
        return tuple(names)
    return None
