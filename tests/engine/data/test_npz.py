"""NumPy arrays, friendly and hostile."""

import io
import zipfile

import numpy as np
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data.params import NpzParams
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    inspect,
    validate,
)

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies


def read(root, **params):
    return DATASETS["npz"].read(NpzParams(**params), root)


def labels(count, classes=3):
    return np.arange(count) % classes


@pytest.mark.parametrize(
    ("x", "params", "kind", "shape"),
    [
        (np.zeros((20, 5)), {}, "table", (5,)),
        (np.zeros((20, 8, 6), np.uint8), {}, "image", (1, 8, 6)),
        (np.zeros((20, 3, 8, 6), np.float32), {}, "image", (3, 8, 6)),
        (np.zeros((20, 8, 6, 3), np.uint8), {}, "image", (3, 8, 6)),
        (np.zeros((20, 8, 6, 2)), {}, "image", (8, 6, 2)),
        (np.zeros((20, 8, 6, 2)), {"layout": "hwc"}, "image", (2, 8, 6)),
        (np.zeros((20, 3, 8, 3)), {}, "image", (3, 8, 3)),
        (np.zeros((20, 3, 8, 3)), {"layout": "hwc"}, "image", (3, 3, 8)),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_the_shape_says_what_an_input_is(tmp_path, x, params, kind, shape, compressed):
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "d.npz", x=x, y=labels(20))
    info = describe("npz", params, tmp_path)
    assert (info.kind, info.input_shape) == (kind, shape)
    assert (info.train_samples, info.test_samples, info.outputs) == (16, 4, 3)
    arrays = read(tmp_path / "d.npz", **params)
    assert arrays.info == info == validate("npz", params, tmp_path)
    assert arrays.train.inputs.shape == (16, *shape)


def test_channels_last_are_moved(tmp_path, rng):
    x = rng.integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=labels(10), x_test=x[:4], y_test=labels(4))
    arrays = read(tmp_path)
    assert arrays.train.inputs.dtype == np.uint8
    assert np.array_equal(arrays.train.inputs, x.transpose(0, 3, 1, 2))
    assert np.array_equal(arrays.test.inputs, x[:4].transpose(0, 3, 1, 2))


def test_a_split_keeps_inputs_and_targets_together(tmp_path):
    x = np.arange(50.0).reshape(50, 1)
    np.savez(tmp_path / "d.npz", x=x, y=x[:, 0] * 2)
    arrays = read(tmp_path, test_fraction=0.3, train_samples=20)
    assert (len(arrays.train.inputs), len(arrays.test.inputs)) == (20, 15)
    assert arrays.info.task == "regression"
    for split in (arrays.train, arrays.test):
        assert np.array_equal(split.targets, split.inputs * 2)
    assert not set(arrays.train.inputs[:, 0]) & set(arrays.test.inputs[:, 0])


@pytest.mark.parametrize(
    ("y", "params", "task", "outputs"),
    [
        (labels(10), {}, "classification", 3),
        (labels(10)[:, None].astype(np.uint8), {}, "classification", 3),
        (labels(10, 2).astype(bool), {}, "classification", 2),
        (labels(10).astype(float), {}, "regression", 1),
        (labels(10).astype(float), {"task": "classification"}, "classification", 3),
        (labels(10), {"task": "regression"}, "regression", 1),
        (np.ones((10, 4)), {}, "regression", 4),
        (np.ones((10, 4), int), {}, "regression", 4),
    ],
)
def test_the_targets_say_what_is_learned(tmp_path, y, params, task, outputs):
    np.savez(tmp_path / "d.npz", x=np.zeros((10, 2)), y=y)
    info = validate("npz", params, tmp_path)
    assert (info.task, info.outputs) == (task, outputs)
    targets = read(tmp_path, **params).train.targets
    assert targets.shape == ((8,) if task == "classification" else (8, outputs))
    assert targets.dtype == (np.int64 if task == "classification" else np.float64)


GOOD_X, GOOD_Y = np.zeros((10, 2)), labels(10)
NAN = np.where(np.eye(10, 2) > 0, np.nan, 1.0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "it has: none"),
        ({"a": GOOD_X}, "it has: a"),
        ({"x": GOOD_X, "y": labels(9)}, "10 rows, but y has 9"),
        ({"x": GOOD_X[:0], "y": GOOD_Y[:0]}, "empty"),
        ({"x": GOOD_X[:, :0], "y": GOOD_Y}, "empty"),
        ({"x": GOOD_X[:1], "y": GOOD_Y[:1]}, "same label"),
        ({"x": GOOD_X[:, 0], "y": GOOD_Y}, "at least 2 axes"),
        ({"x": np.zeros((10, 1, 1, 1, 1)), "y": GOOD_Y}, "neither a table"),
        ({"x": GOOD_X, "y": GOOD_Y * 0}, "same label"),
        ({"x": GOOD_X, "y": GOOD_Y - 1}, "label -1 is out of range"),
        ({"x": GOOD_X, "y": GOOD_Y + 100}, "without gaps"),
        ({"x": GOOD_X, "y": GOOD_Y * 2**40}, "is out of range"),
        ({"x": NAN, "y": GOOD_Y}, "d.npz, x: contains NaN"),
        ({"x": np.full((10, 2), 1e300), "y": GOOD_Y}, "too large"),
        ({"x": GOOD_X, "y": NAN[:, 0]}, "d.npz, y: contains NaN"),
        ({"x": GOOD_X, "y": np.ones((10, 2, 2))}, "shape"),
        ({"x": GOOD_X.astype(str), "y": GOOD_Y}, "not numbers"),
        ({"x": GOOD_X.astype(complex), "y": GOOD_Y}, "not numbers"),
        ({"x_train": GOOD_X, "y_train": GOOD_Y, "x_test": GOOD_X}, "only one of"),
        (
            {"x_train": GOOD_X, "y_train": GOOD_Y, "x_test": GOOD_X[:, :1], "y_test": GOOD_Y},
            "differ in shape",
        ),
        (
            {"x_train": GOOD_X, "y_train": GOOD_Y, "x_test": GOOD_X, "y_test": GOOD_Y + 1},
            "label 3 is out of range",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        validate("npz", {}, tmp_path)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "d.npz", x=np.array([Trap()] * 4, object), y=labels(4))
    for use in (describe, validate):
        with pytest.raises(DataError, match=r"x: holds Python objects \(a pickle\)"):
            use("npz", {}, tmp_path)
    assert not (tmp_path / "sprung").exists()


def crafted(path, header_shape, content=b"\0" * 160):
    """Write an archive whose x promises a shape that its content need not have."""
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": header_shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", buffer.getvalue() + content)
        buffer = io.BytesIO()
        np.save(buffer, GOOD_Y)
        archive.writestr("y.npy", buffer.getvalue())


@pytest.mark.parametrize("shape", [(10, 3), (10, 1), (10, 2**40), (-10, -2), ()])
def test_a_header_that_lies_is_refused(tmp_path, shape):
    crafted(tmp_path / "d.npz", shape)
    with pytest.raises(DataError):
        describe("npz", {}, tmp_path)


def test_a_member_without_the_ending_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x", b"")
        archive.writestr("y", b"")
    with pytest.raises(DataError, match="it has: none"):
        describe("npz", {}, tmp_path)


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr("mlhf.data.files.MAX_HELD_BYTES", 1000)
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((10, 100)), y=GOOD_Y)
    with pytest.raises(DataError, match="at most"):
        describe("npz", {}, tmp_path)


@given(cut=st.floats(0, 1), flip=st.floats(0, 1))
@settings(max_examples=60)
def test_any_damage_is_a_data_error_or_harmless(tmp_path_factory, cut, flip):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.arange(60.0).reshape(20, 3), y=labels(20))
    content = bytearray(buffer.getvalue())
    content[int(flip * (len(content) - 1))] ^= 0x55
    path = tmp_path_factory.mktemp("damaged") / "d.npz"
    path.write_bytes(content[: len(content) if cut > 0.5 else int(2 * cut * len(content))])
    try:
        info = validate("npz", {}, path)
    except DataError:
        return
    assert info.train_samples == 16


def test_fortran_order_reads_the_same(tmp_path, rng):
    x = rng.normal(size=(30, 4, 5))
    for order in "CF":
        np.savez(tmp_path / f"{order}.npz", x=np.asarray(x, order=order), y=labels(30))
    one, other = (read(tmp_path / f"{order}.npz").train.inputs for order in "CF")
    assert np.array_equal(one, other)


def test_large_arrays_are_checked_in_chunks(tmp_path, monkeypatch, rng):
    monkeypatch.setattr("mlhf.data.npz_file._CHUNK_BYTES", 100)
    x = rng.normal(size=(40, 3))
    np.savez(tmp_path / "d.npz", x=x, y=x.sum(1))
    assert validate("npz", {}, tmp_path).train_samples == 32
    arrays = read(tmp_path)
    np.testing.assert_allclose(arrays.train.inputs.sum(1), arrays.train.targets[:, 0])


def test_exactly_one_file_is_needed(tmp_path):
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, x=GOOD_X, y=GOOD_Y)
    with pytest.raises(DataError, match="found 2"):
        describe("npz", {}, tmp_path)
    assert len(digest("npz", {}, tmp_path / "a.npz")) == 64
    with pytest.raises(SpecError) as caught:
        describe("npz", {"test_samples": 3}, tmp_path / "a.npz")
    assert caught.value.pointer == "/params/test_samples"


@pytest.mark.parametrize("kind", [np.int64, np.float32, bool])
def test_one_hot_rows_are_classes_and_that_is_said(tmp_path, kind):
    y = np.eye(3)[labels(12)].astype(kind)
    np.savez(tmp_path / "d.npz", x=np.zeros((12, 2)), y=y)
    found = inspect("npz", {}, tmp_path)
    assert (found.info.task, found.info.outputs) == ("classification", 3)
    assert found.report.guessed == ["y is one-hot: 3 classes"]
    assert [c.train + c.test for c in found.report.classes] == [4, 4, 4]
    arrays = read(tmp_path)
    assert np.bincount(arrays.train.targets).sum() == len(arrays.train.inputs)
    assert describe("npz", {"task": "regression"}, tmp_path).task == "regression"
    if kind is not bool:
        assert describe("npz", {"rules": 1}, tmp_path).task == "regression"


def test_a_test_split_that_is_not_one_hot_is_refused(tmp_path):
    y = np.eye(3)[labels(12)]
    np.savez(tmp_path / "d.npz", x_train=np.zeros((12, 2)), y_train=y,
             x_test=np.zeros((12, 2)), y_test=np.ones((12, 3)))  # fmt: skip
    with pytest.raises(DataError, match="y_test: rows are not one-hot"):
        validate("npz", {}, tmp_path)


def test_several_labels_a_sample_are_several_labels(tmp_path):
    y = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]] * 3)
    np.savez(tmp_path / "d.npz", x=np.zeros((12, 2)), y=y)
    found = inspect("npz", {}, tmp_path)
    assert (found.info.task, found.info.outputs) == ("multilabel", 3)
    assert "multi-label" in found.report.guessed[0]
    assert [each.train + each.test for each in found.report.classes] == [6, 6, 6]
    arrays = read(tmp_path)
    assert arrays.train.targets.dtype == np.float32
    assert arrays.train.targets.shape[1:] == (3,)
    assert set(arrays.train.targets.ravel().tolist()) == {0.0, 1.0}
    assert inspect("npz", {"task": "multilabel"}, tmp_path).report.guessed == []
    for params in ({"task": "regression"}, {"rules": 1}):
        assert describe("npz", params, tmp_path).task == "regression"


def test_what_are_not_several_labels_is_not_taken_for_them(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((12, 2)), y=np.arange(24).reshape(12, 2) / 7)
    with pytest.raises(SpecError, match="of 0 and 1") as caught:
        validate("npz", {"task": "multilabel"}, tmp_path)
    assert caught.value.pointer == "/params/task"
    y = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]] * 3)
    np.savez(tmp_path / "d.npz", x_train=np.zeros((12, 2)), y_train=y,
             x_test=np.zeros((12, 2)), y_test=2 * y)  # fmt: skip
    with pytest.raises(DataError, match="y_test: labels other than 0 and 1"):
        validate("npz", {}, tmp_path)


def test_labels_from_one_leave_no_class_unused(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=np.zeros((12, 2)), y_train=labels(12) + 1,
             x_test=np.zeros((3, 2)), y_test=[1, 3, 2])  # fmt: skip
    found = inspect("npz", {}, tmp_path)
    assert (found.info.outputs, found.info.class_names) == (3, ("1", "2", "3"))
    assert found.report.guessed == ["labels run from 1 to 3: label 1 is the first class"]
    assert read(tmp_path).test.targets.tolist() == [0, 2, 1]
    assert read(tmp_path, first_label=0).info.outputs == 4
    assert read(tmp_path, rules=1).info.outputs == 4
    np.savez(tmp_path / "d.npz", x=np.zeros((12, 2)), y=labels(12))
    assert read(tmp_path, first_label="auto").info.class_names is None
    with pytest.raises(SpecError) as caught:
        read(tmp_path, first_label=1)
    assert caught.value.pointer == "/params/first_label"


def test_decimal_labels_are_asked_about(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((12, 2)), y=labels(12).astype(float), note=np.ones(3))
    found = inspect("npz", {}, tmp_path)
    assert found.info.task == "regression"
    assert "set `task` to classification" in found.report.guessed[0]
    assert found.report.ignored == ["array note"]
    found = inspect("npz", {"task": "classification"}, tmp_path)
    assert (found.info.outputs, found.report.guessed) == (3, [])


def test_numbers_that_hardly_repeat_are_no_classes(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((40, 2)), y=np.arange(40))
    with pytest.raises(DataError, match=r"40 different labels of 40 samples .* `task`"):
        describe("npz", {}, tmp_path)
    assert describe("npz", {"task": "regression"}, tmp_path).outputs == 1
    assert describe("npz", {"task": "classification"}, tmp_path).outputs == 40
