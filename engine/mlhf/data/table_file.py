"""Reading a CSV or Parquet file into an Arrow table."""

import codecs
import re
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra
from mlhf.data.arrow import reading
from mlhf.data.params import TableParams
from mlhf.data.table_numbers import MISSING

with from_extra("data"):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

MAX_BYTES = 2**30
MAX_COLUMNS = 10_000
MAX_CELLS = 2**28

_HEADER_BYTES = 2**20
_DELIMITERS = ",;\t|"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The first bytes of files that are sent as tables and are none.
_OTHERS = (
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"PK\x03\x04", "a zip file or an Excel workbook; save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save the sheet as CSV"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ", "an xz file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file; unpack it first"),
    (b"SQLite format 3", "an SQLite database; export the table as CSV"),
    (b"\x93NUMPY", "a NumPy array; save inputs and targets with numpy.savez, as format npz"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG image; images are uploaded as image_folder or hf_images"),
    (b"\xff\xd8\xff", "a JPEG image; images are uploaded as image_folder or hf_images"),
)


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes:
        encoding: A codec's name.
        delimiter: Between the cells.
        skip: Lines before the header, or before the rows where there is none.
        header: The names are in the first line.
        names: What the first line holds.
        notes: What was recognised without being told.
    """

    encoding: str
    delimiter: str
    skip: int
    header: bool
    names: tuple[str, ...]
    notes: tuple[str, ...]


def read_table(path: Path, params: TableParams, decimal: str = ".") -> pa.Table:
    """Return the table. Raises DataError unless it has rows and distinct column names.

    Args:
        decimal: The decimal mark of the numbers that the parser of CSV recognises.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name}: larger than 1 GiB")
    dialect = None if is_parquet(path) else read_dialect(path, params)
    with reading(path):
        if dialect is None:
            table = _read_parquet(path)
        else:
            table = _read_csv(path, dialect, _conversion(params, decimal))
            if params.rules != 1 and any(pa.types.is_binary(f.type) for f in table.schema):
                raise _not_text(path, dialect)
        # Positions in dictionaries, and UTF-8, which Arrow does not check as it reads.
        table.validate(full=True)
        names = table.column_names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        hint = "" if dialect is None else no_header_hint(dialect)
        raise DataError(f"{path.name}: two columns are named {twice!r}; rename one{hint}")
    if table.num_rows == 0:
        raise DataError(f"{path.name}: no rows")
    return table


def is_parquet(path: Path) -> bool:
    """Whether it is read as Parquet."""
    return path.suffix.lower() == ".parquet"


def read_texts(path: Path, params: TableParams, name: str) -> list[str]:
    """Return a column of a CSV file as it is written, for an error to quote from."""
    convert = csv.ConvertOptions(include_columns=[name], column_types={name: pa.string()})
    with reading(path):
        column = _parsed(path, read_dialect(path, params), convert).column(0)
    return [str(value) for value in column.to_pylist()]


def read_as_texts(path: Path, params: TableParams, names: list[str]) -> pa.Table:
    """Return columns of a CSV file as texts, with nulls for missing numbers.

    Spaces around the texts are left out, as they are around numbers.
    """
    convert = _conversion(params, ".")
    convert.include_columns = names
    convert.column_types = dict.fromkeys(names, pa.string())
    convert.strings_can_be_null = True
    with reading(path):
        table = _parsed(path, read_dialect(path, params), convert)
    for at, name in enumerate(names):
        table = table.set_column(at, name, pc.utf8_trim_whitespace(table.column(at)))
    return table


def may_have_leading_zeros(path: Path, params: TableParams) -> bool:
    """Whether a zero before a digit starts a run of digits anywhere in a CSV file.

    Quick, and true more often than need be (05:30): most files need not be parsed again.
    """
    before = rb"[0-9]" if params.delimiter == "." else rb"[0-9.]"
    # In UTF-16 there is a NUL between digits.
    pattern = re.compile(rb"(?<!" + before + rb")0\0?[0-9]")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return pattern.search(content) is not None


def no_header_hint(dialect: Dialect) -> str:
    """What to add to an error where the first line looks like a row of data."""
    if not dialect.header or not any(map(_is_number, dialect.names)):
        return ""
    return (
        f". The first line looks like data: {', '.join(dialect.names)[:100]}; if the file has no "
        "line of names, set `header` to false: the columns are then f0, f1, f2, …"
    )


def read_dialect(path: Path, params: TableParams) -> Dialect:
    """Look at the first lines. Raises DataError where the file is something else."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    for start, what in _OTHERS:
        if head.startswith(start):
            raise DataError(f"{path.name}: cannot be read as a table: it is {what}")
    notes = []
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None)
    if params.encoding is not None:
        encoding = params.encoding
    elif encoding == "utf-16":
        notes.append("text in UTF-16, by its byte order mark")
    elif encoding is None and b"\0" in head[:1000]:
        raise DataError(
            f"{path.name}: has NUL bytes: if it is text in UTF-16, set `encoding` to utf-16; "
            "otherwise it is no table"
        )
    encoding = encoding or "utf-8"
    if encoding == "utf-16" and not any(head.startswith(bom) for bom, _ in _BOMS[1:]):
        encoding = "utf-16-be" if head.startswith(b"\0") else "utf-16-le"
    lines = head.decode(encoding, "replace").lstrip("\ufeff").splitlines()[:1000]
    lines, skip, delimiter = lines[params.skip_lines :], params.skip_lines, params.delimiter
    if lines and (first := lines[0].strip().strip('"')).lower().startswith("sep="):
        delimiter = delimiter or first[4:5] or "\t"
        lines, skip = lines[1:], skip + 1
        notes.append(f"the first line names the delimiter: {first}")
    if not lines or not lines[0].strip():
        raise DataError(f"{path.name}: the first line has to name the columns")
    _refuse_other_text(path, lines, skip)
    usual = _DELIMITERS[:3] if params.rules == 1 else _DELIMITERS
    found = delimiter or max(usual, key=lines[0].count)
    names = tuple(cell.strip().strip('"') for cell in lines[0].split(found))
    _check_size(path, 1, len(names))
    return Dialect(encoding, found, skip, params.header, names, tuple(notes))


def _refuse_other_text(path: Path, lines: list[str], skip: int) -> None:
    first = lines[0].lstrip()
    if first[:1] in "{[" and first.rstrip()[-1:] in "}],{[":
        raise DataError(
            f"{path.name}: cannot be read as a table: it looks like JSON; convert it, for example "
            "with pandas: pd.read_json(path, lines=True).to_csv('table.csv', index=False)"
        )
    if first.lower().startswith(("<!doctype", "<html", "<?xml")):
        raise DataError(f"{path.name}: cannot be read as a table: it is HTML or XML")
    comments = next((at for at, line in enumerate(lines) if not line.startswith("#")), 0)
    # A single "#id,x" may well be the line of names.
    if comments > 1 or (comments and not any(mark in lines[0] for mark in _DELIMITERS)):
        raise DataError(
            f"{path.name}: comments (#) come before the names, {comments} of its lines; "
            f"remove them, or set `skip_lines` to {skip + comments}"
        )


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        _check_size(path, file.metadata.num_rows, file.metadata.num_columns)
        schema = file.schema_arrow
    texts = [f.name for f in schema if pa.types.is_string(f.type)]
    # Text stays dictionary-encoded, so that a small file cannot unpack to a huge column.
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        return file.read()


def _conversion(params: TableParams, decimal: str) -> csv.ConvertOptions:
    """What is recognised as a number, and what among numbers as a missing value."""
    if params.rules == 1:
        return csv.ConvertOptions()
    missing = [form(text) for text in sorted(MISSING) for form in (str, str.upper, str.title)]
    if params.missing_values is not None:
        missing = ["", *params.missing_values]
    return csv.ConvertOptions(
        decimal_point=decimal,
        null_values=missing,
        column_types={name: pa.string() for name in params.categorical},
    )


def _read_csv(path: Path, dialect: Dialect, conversion: csv.ConvertOptions) -> pa.Table:
    try:
        table = _parsed(path, dialect, conversion)
    except UnicodeDecodeError:
        raise _not_text(path, dialect) from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_text(path, dialect) from None
        raise DataError(
            f"{path.name}: cannot be read: {str(error).splitlines()[0][:300]}"
            f" (cells are separated by {dialect.delimiter!r}; `delimiter` changes that)"
        ) from None
    _check_size(path, table.num_rows, table.num_columns)
    return table


def _parsed(path: Path, dialect: Dialect, convert: csv.ConvertOptions) -> pa.Table:
    return csv.read_csv(
        path,
        read_options=csv.ReadOptions(
            # One block: the type of a column follows from all of it, and rows of any length fit.
            block_size=max(path.stat().st_size * 2 + 1, 2**20),
            encoding=dialect.encoding,
            skip_rows=dialect.skip,
            autogenerate_column_names=not dialect.header,
        ),
        parse_options=csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
        convert_options=convert,
    )


def _not_text(path: Path, dialect: Dialect) -> DataError:
    """Name the first line that is not text in the encoding."""
    number, line = 1, b""
    with path.open("rb") as file:
        for line in file:
            try:
                line.decode(dialect.encoding)
            except UnicodeDecodeError:
                break
            number += 1
    shown = line.decode("windows-1252", "replace").strip()[:60]
    return DataError(
        f"{path.name}: cannot be read: line {number} is not text in {dialect.encoding}. If it "
        f"should read {shown!r}, set `encoding` to windows-1252 (or latin-1); otherwise "
        "save the table as UTF-8"
    )


def _check_size(path: Path, rows: int, columns: int) -> None:
    if columns > MAX_COLUMNS or rows * columns > MAX_CELLS:
        raise DataError(
            f"{path.name}: {rows} rows of {columns} columns are too many; at most {MAX_COLUMNS} "
            f"columns and {MAX_CELLS} cells are read"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
