"""What is not small is examined in a process of its own, within bounds, with the same result."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf_service.datasets import examination
from mlhf_service.datasets.examination import Bounds, examine

AMPLE = Bounds(2 * 2**30, 120.0)


def _table(folder: Path, rows: int) -> Path:
    """A few kilobytes on the disk, however many rows."""
    columns = {"x": np.zeros(rows), "y": np.tile([0.0, 1.0], rows // 2)}
    pq.write_table(pa.table(columns), folder / "table.parquet", compression="zstd")
    return folder


def test_the_result_is_the_same_apart(tmp_path: Path) -> None:
    folder, params = _table(tmp_path, 1000), {"target": "y"}
    said: list[tuple[int, int]] = []
    here = examination._examine("table", params, folder, None)
    apart = examination._examine_apart(
        "table", params, folder, AMPLE, lambda done, total: said.append((done, total))
    )
    assert apart == here
    assert here.info["train_samples"] + here.info["test_samples"] == 1000


def test_errors_are_the_same_apart(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as wrong:
        examination._examine_apart("table", {"target": "z"}, _table(tmp_path, 100), AMPLE, None)
    assert wrong.value.pointer.startswith("/params")
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError):
        examination._examine_apart("table", {"target": "y"}, tmp_path, AMPLE, None)


def test_a_small_file_of_many_rows_is_bounded(tmp_path: Path) -> None:
    folder = _table(tmp_path, 8_000_000)
    assert (folder / "table.parquet").stat().st_size < 2**20
    with pytest.raises(DataError, match="could not be checked within"):
        examine("table", {"target": "y"}, folder, Bounds(2**28, 120.0))


def test_an_examination_ends_in_time(tmp_path: Path) -> None:
    folder = _table(tmp_path, 2_000_000)
    with pytest.raises(DataError, match="could not be checked within"):
        examine("table", {"target": "y"}, folder, Bounds(2**31, 0.05))


def test_what_is_small_needs_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_examine_apart", None)
    assert examine("table", {"target": "y"}, _table(tmp_path, 1000), AMPLE).sha256
