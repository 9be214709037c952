"""What a table's columns are: parsed where all of a column agrees, else refused, never changed."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data.params import TableParams
from mlhf.data.specs import DATASETS, describe, inspect
from mlhf.data.table_types import packed_texts


def write(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def column(values, mark=","):
    """Return a table of a column ``a`` and a target ``y`` of two classes."""
    rows = (f"{value}{mark}{index % 2}\n" for index, value in enumerate(values))
    return f"a{mark}y\n" + "".join(rows)


def inputs(path, **params):
    """Return column ``a`` as read, in order of the rows."""
    parsed = TableParams(target="y", test_fraction=0.2, **params)
    arrays = DATASETS["table"].read(parsed, path)
    split = np.concatenate([arrays.train.inputs, arrays.test.inputs])
    return sorted(split[:, 0].tolist()), arrays


@pytest.mark.parametrize(
    ("values", "mark", "numbers"),
    [
        ([f"{n},5" for n in range(9)], ";", [n + 0.5 for n in range(9)]),
        ([f"${n}.00" for n in range(9)], ",", list(range(9))),
        ([f"1\u00a00{n:02d}" for n in range(9)], ",", list(range(1000, 1009))),
        ([f"{n}%" for n in range(9)], ",", [n / 100 for n in range(9)]),
        ([f'"{n},000.5"' for n in range(1, 9)], ",", [1000 * n + 0.5 for n in range(1, 9)]),
        ([f"\u2212{n}" for n in range(9, 0, -1)], ",", list(range(-9, 0))),
    ],
)
def test_numbers_are_numbers_however_they_are_written(tmp_path, values, mark, numbers):
    path = write(tmp_path, column(values, mark))
    found, arrays = inputs(path)
    assert found == pytest.approx(numbers)
    assert arrays.info.input_shape == (1,)
    report = inspect("table", {"target": "y"}, path).report
    assert [(c.name, c.type) for c in report.columns] == [("a", "number"), ("y", "class")]
    assert "a: numbers written with" in report.converted[0]


def test_a_doubtful_column_is_read_as_the_rest_of_the_table_or_asked_for(tmp_path):
    rows = "".join(f"{n},5;1.{n}00;{n % 2}\n" for n in range(1, 9))
    path = write(tmp_path, "b;a;y\n" + rows)
    report = inspect("table", {"target": "y"}, path).report
    assert [c.type for c in report.columns] == ["number", "number", "class"]
    arrays = DATASETS["table"].read(TableParams(target="y"), path)
    assert arrays.train.inputs[:, 1].min() >= 1100
    alone = write(tmp_path, column(["1,000", "2,000", "3,000"] * 3, ";"), "u.csv")
    with pytest.raises(DataError, match="'1,000' can be read as 1 or 1000; set `decimal`"):
        describe("table", {"target": "y"}, alone)
    assert inputs(alone, decimal=".")[0] == [1000] * 3 + [2000] * 3 + [3000] * 3
    assert inputs(alone, decimal=",")[0] == [1] * 3 + [2] * 3 + [3] * 3
    assert inputs(alone, thousands=",")[0][0] == 1000


@pytest.mark.parametrize("mark", ["NA", "-", "?", "n/k", "", "N/A", "null"])
@pytest.mark.parametrize("style", ["{}", "{},5"])
def test_a_missing_number_is_refused_by_name_or_handled_as_told(tmp_path, mark, style):
    values = [style.format(n) for n in range(10)]
    values[3] = mark
    path = write(tmp_path, column(values, ";"))
    with pytest.raises(DataError) as caught:
        describe("table", {"target": "y"}, path)
    for part in ("column 'a'", "row 4", repr(mark), "`missing`"):
        assert part in str(caught.value)
    found, arrays = inputs(path, missing="drop")
    assert (len(found), arrays.info.train_samples) == (9, 7)
    found, arrays = inputs(path, missing="fill")
    assert len(found) == 10
    assert np.isfinite(found).all()
    fill = arrays.notes["columns"][0]["fill"]
    assert fill in found
    report = inspect("table", {"target": "y", "missing": "drop"}, path).report
    assert report.dropped_rows == 1
    assert report.columns[0].missing == 1


def test_the_fill_is_the_mean_of_the_training_rows(tmp_path):
    values = [str(n) for n in range(20)]
    values[7] = "NA"
    path = write(tmp_path, column(values))
    arrays = inputs(path, missing="fill")[1]
    fill = arrays.notes["columns"][0]["fill"]
    train = [value for value in arrays.train.inputs[:, 0] if value != fill]
    assert fill == pytest.approx(np.mean(train))


def test_a_text_among_numbers_is_refused_by_name(tmp_path):
    values = [*map(str, range(5)), "unbekannt", "7"]
    path = write(tmp_path, column(values))
    with pytest.raises(DataError) as caught:
        describe("table", {"target": "y"}, path)
    for part in ("column 'a'", "row 6", "'unbekannt'", "`missing_values`", "`categorical`"):
        assert part in str(caught.value)
    assert describe("table", {"target": "y", "categorical": ["a"]}, path).input_shape == (7,)
    found, _ = inputs(path, missing="drop", missing_values=["unbekannt"])
    assert found == [0, 1, 2, 3, 4, 7]


def test_numbers_can_be_categories_and_stand_for_missing_values(tmp_path):
    path = write(tmp_path, column([n % 3 for n in range(9)]))
    assert describe("table", {"target": "y", "categorical": ["a"]}, path).input_shape == (3,)
    with pytest.raises(SpecError) as caught:
        describe("table", {"target": "y", "categorical": ["b"]}, path)
    assert caught.value.pointer == "/params/categorical/0"
    coded = write(tmp_path, column([-999, *range(8)]), "u.csv")
    assert inputs(coded, missing="drop", missing_values=["-999"])[0] == list(range(8))
    table = pa.table({"a": [-999.0, float("nan"), *range(8)], "y": [0, 1] * 5})
    pq.write_table(table, tmp_path / "v.parquet")
    path = tmp_path / "v.parquet"
    assert inputs(path, missing="drop", missing_values=["-999"])[0] == list(range(8))


def test_missing_texts_and_targets(tmp_path):
    table = pa.table({"a": ["x", None, "z", "x"] * 3, "y": [0, 1, 0, None] * 3})
    pq.write_table(table, tmp_path / "t.parquet")
    arrays = inputs(tmp_path / "t.parquet", missing="fill")[1]
    assert arrays.info.train_samples + arrays.info.test_samples == 9
    assert arrays.info.input_shape == (2,)
    together = np.concatenate([arrays.train.inputs, arrays.test.inputs])
    assert sorted(together.sum(1).tolist()) == [0] * 3 + [1] * 6


def test_text_in_parquet_stays_text_and_that_is_said(tmp_path):
    table = pa.table({"a": [f"{n},5" for n in range(10)], "y": [0, 1] * 5})
    pq.write_table(table, tmp_path / "t.parquet")
    found = inspect("table", {"target": "y"}, tmp_path)
    assert found.info.input_shape == (10,)
    assert "a: taken as texts; the values look like numbers" in found.report.guessed[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# made by\n# a tool\na,y\n1,2\n", "set `skip_lines` to 2"),
        ("a,y\n1,gr\u00fcn\n2,rot\n".encode("latin-1"), "line 2 .*'1,gr\u00fcn', set `encoding`"),
        (gzip.compress(b"a,y\n1,2\n", mtime=0), "gzip file; unpack"),
        (b"PK\x03\x04 and so on", "Excel"),
        (b'{"a": 1, "y": 2}\n{"a": 2, "y": 3}\n', "looks like JSON"),
        ("a,y\n1,2\n".encode("utf-16-le"), "set `encoding` to utf-16"),
        (b"-3.0,0,0\n-2.5,1,1\n", "set `header` to false"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message):
        describe("table", {"target": "y"}, path)


@pytest.mark.parametrize(
    ("content", "params"),
    [
        (b"sep=;\na;y\n1;0\n2;1\n3;0\n", {}),
        (b"sep=|\na|y\n1|0\n2|1\n3|0\n", {}),
        ("a,y\n1,0\n2,1\n3,0\n".encode("utf-16"), {}),
        ("a,y\n1,0\n2,1\n3,0\n".encode("utf-16-le"), {"encoding": "utf-16"}),
        (b"# a note\na,y\n1,0\n2,1\n3,0\n", {"skip_lines": 1}),
        (b"a:y\n1:0\n2:1\n3:0\n", {"delimiter": ":"}),
        (b"1,0\n2,1\n3,0\n", {"header": False, "target": "f1"}),
        ("ä,y\n1,0\n2,1\n3,0\n".encode("latin-1"), {"encoding": "latin-1"}),
        (b"\xef\xbb\xbfa,y\n1,0\n2,1\n3,0\n", {}),
    ],
)
def test_and_are_read_as_told(tmp_path, content, params):
    params = {"target": "y", **params}
    info = describe("table", params, write(tmp_path, content))
    assert (info.input_shape, info.outputs) == ((1,), 2)


def test_cells_with_newlines_in_a_large_file(tmp_path):
    rows = "".join(
        f'"line {n % 3}\nmore text to fill the row {n % 3}",{n},{n % 2}\n' for n in range(120_000)
    )
    info = describe("table", {"target": "y"}, write(tmp_path, "note,a,y\n" + rows))
    assert (info.train_samples, info.test_samples) == (96_000, 24_000)


def test_a_type_follows_from_all_of_a_large_column(tmp_path):
    values = [*range(300_000), 0.5]  # more than a megabyte of whole numbers come first
    assert inputs(write(tmp_path, column(values)))[0][1] == 0.5


def coded(code):
    """Return a table of a column ``a`` of codes, a number, and a target."""
    return "a,n,y\n" + "".join(f"{code(n)},{n}.5,{n % 2}\n" for n in range(12))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("style", ["{}", " {} ", '"{}"'])
def test_digits_that_start_with_a_zero_are_a_code(tmp_path, style, encoding):
    text = coded(lambda n: style.format(("00012", "01012", "12345")[n % 3]))
    path = write(tmp_path, text.encode(encoding))
    arrays = DATASETS["table"].read(TableParams(target="y"), path)
    assert arrays.notes["columns"][0]["categories"] == ["00012", "01012", "12345"]
    report = inspect("table", {"target": "y"}, path).report
    assert (report.columns[0].type, report.columns[0].inputs) == ("category", 3)
    assert "start with a zero, such as '00012'" in report.columns[0].why
    assert any(n.startswith("a: ") and "`numeric`" in n for n in report.guessed)
    found = describe("table", {"target": "y", "numeric": ["a"]}, path)
    assert found.input_shape == (2,)
    assert describe("table", {"target": "y", "rules": 1}, path).input_shape == (2,)


def test_codes_keep_their_texts_as_names_of_classes(tmp_path):
    path = write(tmp_path, coded(lambda n: ("01", "02", "10")[n % 3]))
    assert describe("table", {"target": "a"}, path).class_names == ("01", "02", "10")
    numbers = {"target": "a", "numeric": ["a"]}
    assert describe("table", numbers, path).class_names == ("1", "2", "10")
    assert describe("table", {"target": "a", "rules": 1}, path).class_names == ("1", "2", "10")
    with pytest.raises(SpecError, match=r"not numbers to predict.*'01', are a code.*`numeric`"):
        describe("table", {"target": "a", "task": "regression"}, path)


@pytest.mark.parametrize(
    "texts", [("0", "1"), ("0", "0.5"), ("0.05", "10"), ("-01", "2"), ("00.5", "1"), ("100", "20")]
)
def test_other_numbers_with_zeros_are_numbers(tmp_path, texts):
    path = write(tmp_path, coded(lambda n: texts[n % 2]) + "7,05.5,1\n")
    report = inspect("table", {"target": "y"}, path).report
    assert [c.type for c in report.columns] == ["number", "number", "class"]


def test_a_code_may_be_missing_or_one_of_too_many(tmp_path):
    path = write(tmp_path, coded(lambda n: "" if n == 3 else f"0{n % 2}"))
    with pytest.raises(DataError, match="column 'a': 1 values are missing, the first in row 4"):
        describe("table", {"target": "y"}, path)
    filled = inspect("table", {"target": "y", "missing": "fill"}, path)
    assert (filled.info.input_shape, filled.report.columns[0].missing) == ((3,), 1)
    path = write(tmp_path, column([f"0{n:04d}" for n in range(0, 4004, 2)][::-1]), "u.csv")
    with pytest.raises(DataError, match=r"column 'a': 2002 different texts.*`numeric`"):
        describe("table", {"target": "y"}, path)


def test_numeric_is_of_columns_that_are_numbers(tmp_path):
    path = write(tmp_path, coded(lambda n: f"x{n % 2}"))
    for wrong, message in (
        ({"numeric": ["n", "a"]}, "column 'a' holds texts"),
        ({"numeric": ["n", "z"]}, "no column 'z'"),
        ({"numeric": ["a", "n"], "categorical": ["n"]}, "in `categorical` too"),
    ):
        with pytest.raises(SpecError, match=message) as caught:
            describe("table", {"target": "y", **wrong}, path)
        assert caught.value.pointer == "/params/numeric/1"


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "index", "ID", "__index_level_0__"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_row_numbers_are_left_out_and_that_is_said(tmp_path, name, first, form):
    rows = range(12)
    columns = {name: [n + first for n in rows], "n": [n**2 for n in rows], "y": [0, 1] * 6}
    path = tmp_path / f"t.{form}"
    if form == "csv":
        table = zip(*columns.values(), strict=True)
        path.write_text(f"{name},n,y\n" + "".join(f"{a},{b},{c}\n" for a, b, c in table))
    else:
        pq.write_table(pa.table(columns), path)
    found = inspect("table", {"target": "y"}, path)
    assert found.info.input_shape == (1,)
    assert [c.name for c in found.report.columns] == ["n", "y"]
    assert f"column {name!r}: numbers of rows; set `row_numbers`" in found.report.ignored[0]
    arrays = DATASETS["table"].read(TableParams(target="y"), path)
    assert [column["name"] for column in arrays.notes["columns"]] == ["n"]
    for kept in ({"row_numbers": "use"}, {"rules": 1}):
        assert describe("table", {"target": "y", **kept}, path).input_shape == (2,)


def test_the_index_of_chosen_rows_is_left_out(tmp_path):
    index = [7, 3, 11, 0, 5, 2]
    columns = {"n": [n / 2 for n in index], "y": [0, 1] * 3, "__index_level_0__": index}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert describe("table", {"target": "y"}, tmp_path / "t.parquet").input_shape == (1,)


@pytest.mark.parametrize("rules", [1, 2])
def test_a_target_that_is_ignored_as_an_input_is_the_target(tmp_path, rules):
    path = write(tmp_path, coded(lambda n: n % 3))
    params = {"target": "y", "ignore": ["y", "n"], "rules": rules}
    found = inspect("table", params, path)
    assert found.info.class_names == ("0", "1")
    assert found.report.ignored == ["column n"]


def test_other_whole_numbers_are_inputs(tmp_path):
    for name, values in (("id", [3, *range(1, 12)]), ("id", range(2, 14)), ("n", range(12))):
        rows = "".join(f"{a},{b}.5,{b % 2}\n" for b, a in enumerate(values))
        path = write(tmp_path, f"{name},x,y\n" + rows)
        report = inspect("table", {"target": "y"}, path).report
        assert [c.name for c in report.columns] == [name, "x", "y"]
        assert not report.ignored
    path = write(tmp_path, "id,y\n" + "".join(f"{n},{n % 2}\n" for n in range(12)))
    with pytest.raises(DataError, match=r"no input columns .* row numbers in .id.; set"):
        describe("table", {"target": "y"}, path)
    assert describe("table", {"target": "y", "categorical": ["id"]}, path).input_shape == (12,)
    assert describe("table", {"target": "id", "task": "regression"}, path).outputs == 1


def test_categories_as_many_as_rows_are_reported(tmp_path):
    path = write(tmp_path, coded(lambda n: f"{n + 1}_000"))
    report = inspect("table", {"target": "y"}, path).report
    assert any("a: 12 categories in 12 rows, nearly one for each row" in n for n in report.guessed)
    path = write(tmp_path, coded(lambda n: f"{n % 10}_000"), "u.csv")
    assert not inspect("table", {"target": "y"}, path).report.guessed


def test_the_rules_of_earlier_uploads_give_what_they_gave(tmp_path):
    path = write(tmp_path, b"a,y,note\n1,0,gr\xfcn\n2,1,rot\n3,0,rot\n")
    old = {"target": "y", "ignore": ["note"], "rules": 1}
    assert describe("table", old, path).input_shape == (1,)
    path = write(tmp_path, b"a|b|c,y\n1,0\n2,1\n3,0\n")
    assert describe("table", {"target": "y", "rules": 1}, path).input_shape == (1,)
    path = write(tmp_path, column([f"{n},5" for n in range(9)], ";"))
    assert describe("table", {"target": "y", "rules": 1}, path).input_shape == (9,)
    path = write(tmp_path, column(["1", "?", "3", "4"]))
    assert describe("table", {"target": "y", "rules": 1}, path).input_shape == (4,)


@pytest.mark.parametrize("position", [pa.uint8(), pa.uint16(), pa.uint32(), pa.int64()])
def test_categories_may_have_positions_of_any_type(position):
    texts = pa.array(["b", None, "a", "b"]).cast(pa.dictionary(position, pa.string()))
    packed = packed_texts(pa.chunked_array([texts]))
    assert packed.to_pylist() == ["b", None, "a", "b"]
    assert packed.indices.fill_null(-1).to_pylist()[1] == -1
