"""Curves as Parquet in long format, written piece by piece.

The functions import pyarrow: it takes a while, and most commands need none.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlhf_service.runs.curve_files import COLUMNS
from mlhf_service.runs.curves import Series

PARQUET = "application/vnd.apache.parquet"

_ROW_GROUP = 131_072  # rows of Parquet that are in memory together


def pieces(series: Iterable[Series]) -> Iterator[bytes]:
    """Parquet; values that are not finite are stored as such. Takes what CSV does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.dictionary(pa.int32(), pa.string())
    kinds = (text, text, pa.int64(), pa.int64(), *[pa.float64()] * 4)
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    sink = _Sink()
    with pq.ParquetWriter(sink, schema) as writer:
        gathered, rows = list[Series](), 0
        for one in series:
            gathered.append(one)
            rows += len(one)
            if rows >= _ROW_GROUP:
                writer.write_table(_table(gathered, schema))
                gathered, rows = [], 0
                yield sink.taken()
        if rows:
            writer.write_table(_table(gathered, schema))
    yield sink.taken()


def _table(series: Sequence[Series], schema: Any) -> Any:
    import pyarrow as pa

    text = schema.field("metric").type
    tables = [
        pa.table(
            [
                pa.array([one.run_id] * len(one), text),
                pa.array([one.metric] * len(one), text),
                *(one.step, one.samples, one.epoch, one.wall_seconds),
                pa.array(one.cpu_seconds, mask=np.isnan(one.cpu_seconds)),
                pa.array(one.value),
            ],
            schema=schema,
        )
        for one in series
    ]
    return pa.concat_tables(tables).unify_dictionaries()


class _Sink:
    """A file to write to whose bytes are taken away as they come."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def write(self, content: bytes) -> int:
        self._parts.append(bytes(content))
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
