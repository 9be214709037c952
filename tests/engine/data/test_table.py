"""Tables, numeric and categorical, from CSV and Parquet."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data.params import TableParams
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    validate,
)

ROWS = 40


@pytest.fixture
def columns(rng):
    return {
        "size": rng.normal(size=ROWS) * 100,
        "colour": [["red", "blue", "a, b"][i % 3] for i in range(ROWS)],
        "big": [bool(i % 2) for i in range(ROWS)],
        "count": list(range(ROWS)),
        "grade": [10 * (i % 4) for i in range(ROWS)],
    }


def write(folder, columns, form):
    table = pa.table(columns)
    if form == "parquet":
        pq.write_table(table, folder / "t.parquet", row_group_size=7)
    elif form == "semicolon":
        text = ";".join(table.column_names) + "\n"
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        text += "\n".join(";".join(map(str, row)) for row in rows)
        (folder / "t.csv").write_text(text.replace("True", "true").replace("False", "false"))
    else:
        csv.write_csv(table, folder / "t.csv")


def read(root, target, **params):
    return DATASETS["table"].read(TableParams(target=target, **params), root)


@pytest.mark.parametrize("form", ["csv", "semicolon", "parquet"])
def test_columns_become_inputs_in_order(tmp_path, columns, form):
    write(tmp_path, columns, form)
    arrays = read(tmp_path, "count", ignore=["grade"])
    assert arrays.info == describe("table", {"target": "count", "ignore": ["grade"]}, tmp_path)
    assert arrays.info == validate("table", {"target": "count", "ignore": ["grade"]}, tmp_path)
    assert (arrays.info.task, arrays.info.input_shape) == ("regression", (5,))
    assert (arrays.info.train_samples, arrays.info.test_samples) == (32, 8)
    rows = arrays.train.targets[:, 0].astype(int)
    np.testing.assert_allclose(arrays.train.inputs[:, 0], columns["size"][rows], rtol=1e-12)
    for at, colour in enumerate(("a, b", "blue", "red"), start=1):
        expected = [columns["colour"][row] == colour for row in rows]
        assert arrays.train.inputs[:, at].tolist() == expected
    assert arrays.train.inputs[:, 4].tolist() == (rows % 2).tolist()
    assert arrays.scaled.tolist() == [True, False, False, False, True]
    assert arrays.notes["columns"][1] == {"name": "colour", "categories": ["a, b", "blue", "red"]}


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("target", "params", "task", "names"),
    [
        ("colour", {}, "classification", ("a, b", "blue", "red")),
        ("big", {}, "classification", ("false", "true")),
        ("grade", {}, "classification", ("0", "10", "20", "30")),
        ("grade", {"task": "regression"}, "regression", None),
        ("count", {}, "regression", None),
        ("size", {}, "regression", None),
    ],
)
def test_the_target_says_what_is_learned(tmp_path, columns, form, target, params, task, names):
    write(tmp_path, columns, form)
    arrays = read(tmp_path, target, **params)
    assert (arrays.info.task, arrays.info.class_names) == (task, names)
    assert arrays.info.outputs == (len(names) if names else 1)
    if target == "grade" and names:
        position = [note["name"] for note in arrays.notes["columns"]].index("count")
        at = sum(len(n["categories"] or "1") for n in arrays.notes["columns"][:position])
        assert np.array_equal(arrays.test.inputs[:, at] % 4, arrays.test.targets)


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"target": "absent"}, "/params/target"),
        ({"target": "size", "ignore": ["big", "absent"]}, "/params/ignore/1"),
        ({"target": "colour", "task": "regression"}, "/params/target"),
        ({"target": "size", "train_samples": 33}, "/params/train_samples"),
    ],
)
def test_the_pointer_leads_to_the_mistake(tmp_path, columns, params, pointer):
    write(tmp_path, columns, "csv")
    with pytest.raises(SpecError) as caught:
        validate("table", params, tmp_path)
    assert caught.value.pointer == pointer


DAY = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [None, *range(ROWS - 1)]}, "'size': 1 values are missing"),
        ({"colour": [None, "a"] * 20}, "'colour': 20 values are missing"),
        ({"y": [None, 1] * 20}, "'y': 20 values are missing"),
        ({"size": [float("nan"), 1.0] * 20}, "'size': contains NaN"),
        ({"size": [float("inf"), 1.0] * 20}, "'size': contains NaN, infinite"),
        ({"y": [float("nan"), 1.0] * 20}, "'y': contains NaN"),
        ({"y": ["same"] * ROWS}, "same class"),
        ({"y": [3] * ROWS}, "same class"),
        ({"day": [DAY] * ROWS}, "'day': values of type timestamp"),
        ({"ids": [str(i) for i in range(ROWS)]}, "'ids': 40 different texts"),
        ({"list": [[1, 2]] * ROWS}, "'list': values of type list"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr("mlhf.data.table_columns.MAX_CATEGORIES", 30)
    good = {"size": list(range(ROWS)), "colour": ["a", "b"] * 20, "y": [0, 1] * 20}
    write(tmp_path, {**good, **change}, "parquet")
    with pytest.raises(DataError, match=message):
        validate("table", {"target": "y"}, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "first line"),
        (b"\n1,2\n", "first line"),
        (b"a,y\n", "no rows"),
        (b"a,y\n1\n", "cannot be read"),
        (b"a,a,y\n1,2,3\n", "two columns are named 'a'"),
        (b"y\n1\n2\n3\n", "no input columns"),
        (b"a,y\n1,2\n", "at least 2 are needed"),
        (b"a,y\n1,2\n,3\n4,5", "'a': 1 values are missing"),
        (b"a,y\n1,2\nnan,3\n4,5", "'a': (1 values are missing|contains NaN)"),
        (b"a,y\n\xff\xfe,2\n3,4\n", "type binary|UTF"),
        (b"\x89PNG" * 100, "cannot be read|no column|no rows|named"),
        (b",".join(b"c%d" % i for i in range(10_001)) + b"\n", "are too many"),
    ],
)
def test_a_broken_csv_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises((DataError, SpecError), match=message):
        validate("table", {"target": "y"}, tmp_path)


def test_a_broken_parquet_file_is_refused(tmp_path, columns):
    write(tmp_path, columns, "parquet")
    path = tmp_path / "t.parquet"
    content = path.read_bytes()
    for bad in (b"PAR1PAR1", content[:100], content[: len(content) // 2] + content[-300:]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"t.parquet: cannot be read"):
            validate("table", {"target": "size"}, tmp_path)


def test_a_parquet_file_whose_names_are_no_text_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"size": [1.0, 2.0], "y": [1, 2]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"size", b"s\xffze"))
    with pytest.raises(DataError, match=r"t.parquet: cannot be read"):
        validate("table", {"target": "y"}, tmp_path)


def test_a_parquet_bomb_is_refused_by_its_metadata(tmp_path):
    # 300 million equal numbers pack into a few kilobytes.
    part = pa.table({"x": pa.array(np.zeros(10**7, np.int8)), "y": np.zeros(10**7, np.int8)})
    with pq.ParquetWriter(tmp_path / "t.parquet", part.schema) as writer:
        for _ in range(14):
            writer.write_table(part)
    with pytest.raises(DataError, match="140000000 rows of 2 columns are too many"):
        describe("table", {"target": "y"}, tmp_path)


def test_a_long_text_in_every_row_stays_packed(tmp_path):
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 5000, pa.int32()), pa.array(["x" * 1_000_000])
    )
    pq.write_table(pa.table({"x": text, "y": list(range(5000))}), tmp_path / "t.parquet")
    assert validate("table", {"target": "y"}, tmp_path).input_shape == (1,)
    assert pa.default_memory_pool().max_memory() < 2**30  # unpacked: 5 GB


def test_the_digest_is_of_the_file(tmp_path, columns):
    write(tmp_path, columns, "csv")
    assert len(digest("table", {"target": "size"}, tmp_path)) == 64
