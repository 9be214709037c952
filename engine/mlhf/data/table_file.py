"""Reading a CSV or Parquet file into an Arrow table."""

from pathlib import Path

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra
from mlhf.data.arrow import reading

with from_extra("data"):
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

MAX_BYTES = 2**30
MAX_COLUMNS = 10_000
MAX_CELLS = 2**28

_HEADER_BYTES = 2**20


def read_table(path: Path) -> pa.Table:
    """Return the table. Raises DataError unless it has rows and distinct column names."""
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name}: larger than 1 GiB")
    with reading(path):
        table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
        # Positions in dictionaries, and UTF-8, which Arrow does not check as it reads.
        table.validate(full=True)
        names = table.column_names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path.name}: two columns are named {twice!r}; rename one")
    if table.num_rows == 0:
        raise DataError(f"{path.name}: no rows")
    return table


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        _check_size(path, file.metadata.num_rows, file.metadata.num_columns)
        schema = file.schema_arrow
    texts = [f.name for f in schema if pa.types.is_string(f.type)]
    # Text stays dictionary-encoded, so that a small file cannot unpack to a huge column.
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        return file.read()


def _read_csv(path: Path) -> pa.Table:
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES).split(b"\n", 1)[0]
    if not header.strip():
        raise DataError(f"{path.name}: the first line has to name the columns")
    delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))
    _check_size(path, 1, header.count(delimiter.encode()) + 1)
    table = csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter))
    _check_size(path, table.num_rows, table.num_columns)
    return table


def _check_size(path: Path, rows: int, columns: int) -> None:
    if columns > MAX_COLUMNS or rows * columns > MAX_CELLS:
        raise DataError(
            f"{path.name}: {rows} rows of {columns} columns are too many; at most {MAX_COLUMNS} "
            f"columns and {MAX_CELLS} cells are read"
        )
