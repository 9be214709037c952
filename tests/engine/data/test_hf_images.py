"""Uploaded images in Parquet files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data.params import HfImagesParams
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    inspect,
    validate,
)

SMALL = {"size": 8}


@pytest.fixture
def images(encode):
    """Encoded images of one grey each: 3 times the index."""
    return [encode(np.full((9, 11, 3), 3 * index, np.uint8)) for index in range(40)]


def write(path, images, labels, *, nested=True, names=None, **columns):
    column = [{"bytes": i, "path": None} for i in images] if nested else images
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if nested else pa.binary()
    table = pa.table({"image": pa.array(column, kind), "label": labels, **columns})
    if names:
        features = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=15)


def read(root, **params):
    return DATASETS["hf_images"].read(HfImagesParams(**SMALL, **params), root)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("folder", ["", "data"])
def test_images_and_labels_come_as_written(tmp_path, images, nested, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    labels = [index % 4 for index in range(40)]
    names = ["a", "b", "c", "d"]
    write(
        tmp_path / folder / "train-0.parquet", images[:30], labels[:30], nested=nested, names=names
    )
    write(tmp_path / folder / "validation-0.parquet", images[30:], labels[30:], nested=nested)
    arrays = read(tmp_path)
    assert arrays.train.inputs[:, 0, 0, 0].tolist() == [3 * index for index in range(30)]
    assert arrays.test.targets.tolist() == labels[30:]
    assert arrays.info.class_names == tuple(names)
    assert arrays.info == describe("hf_images", SMALL, tmp_path)
    assert arrays.info == validate("hf_images", SMALL, tmp_path)


def test_one_file_alone_is_split(tmp_path, images):
    write(tmp_path / "pictures.parquet", images, [index % 2 for index in range(40)])
    for root in (tmp_path, tmp_path / "pictures.parquet"):
        arrays = read(root, test_fraction=0.25, channels=1)
        assert arrays.train.inputs.shape == (30, 1, 8, 8)
        both = np.concatenate([arrays.train.inputs, arrays.test.inputs])[:, 0, 0, 0]
        assert sorted(both.tolist()) == [3 * index for index in range(40)]
        for split in (arrays.train, arrays.test):
            assert np.array_equal(split.inputs[:, 0, 0, 0] // 3 % 2, split.targets)
        assert len(digest("hf_images", SMALL, root)) == 64


def test_columns_can_be_named(tmp_path, images):
    thumbs = pa.array(images[::-1], pa.binary())
    write(tmp_path / "train.parquet", images, [0, 1] * 20, thumb=thumbs, other=[0, 1, 2, 3] * 10)
    arrays = read(tmp_path, image_column="thumb", label_column="other", test_fraction=0.1)
    assert arrays.info.outputs == 4
    greys = arrays.train.inputs[:, 0, 0, 0].astype(int)
    assert np.array_equal((39 - greys // 3) % 4, arrays.train.targets)
    with pytest.raises(DataError, match="column 'other' is int64, not images"):
        read(tmp_path, image_column="other")
    with pytest.raises(DataError, match="no image column; it has: image, label, thumb, other"):
        read(tmp_path, image_column="absent")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 40, "same label"),
        ([-1, 1] * 20, "label -1 is out of range"),
        ([0, 70_000] * 20, "label 70000 is out of range"),
        ([0, 500] * 20, "without gaps"),
        ([None, 1] * 20, "missing labels"),
        ([[1]] * 40, "no label column"),
        ([float("nan"), 1.0] * 20, "NaN"),
        (list(range(40)), "40 different labels of 40 samples are no classes"),
    ],
)
def test_bad_labels_are_refused(tmp_path, images, labels, message):
    write(tmp_path / "train.parquet", images, labels)
    with pytest.raises(DataError, match=message):
        describe("hf_images", SMALL, tmp_path)


def test_labels_beyond_the_named_classes_are_refused(tmp_path, images):
    write(tmp_path / "train.parquet", images, [0, 2] * 20, names=["a", "b"])
    with pytest.raises(DataError, match="label 2 is out of range"):
        validate("hf_images", SMALL, tmp_path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(b"broken", "row 20: not a readable image"), (None, "row 20: no image")],
)
def test_a_bad_image_is_named(tmp_path, images, broken, message):
    images[20] = broken
    write(tmp_path / "train.parquet", images, [0, 1] * 20)
    describe("hf_images", {**SMALL, "channels": 3}, tmp_path)
    with pytest.raises(DataError, match=message):
        validate("hf_images", SMALL, tmp_path)


def test_files_that_disagree_are_refused(tmp_path, images):
    write(tmp_path / "train-0.parquet", images, [0, 1] * 20)
    write(tmp_path / "train-1.parquet", images, [0, 1] * 20, nested=False)
    with pytest.raises(DataError, match=r"train-1.parquet: its columns differ"):
        describe("hf_images", SMALL, tmp_path)


def test_a_broken_file_is_refused(tmp_path, images):
    path = tmp_path / "train-0.parquet"
    write(path, images, [0, 1] * 20)
    content = bytearray(path.read_bytes())
    for bad in (b"PAR1", content[:-20], content[:2000] + content[2100:]):
        path.write_bytes(bad)
        with pytest.raises(DataError):
            validate("hf_images", SMALL, tmp_path)
    content[200:260] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(DataError):
        validate("hf_images", SMALL, tmp_path)


def test_a_file_whose_names_are_no_text_is_refused(tmp_path, images):
    path = tmp_path / "train.parquet"
    table = pa.table({"image": pa.array(images, pa.binary()), "label": [0, 1] * 20})
    pq.write_table(table, path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"label", b"lab\xffl"))
    with pytest.raises(DataError, match=r"train.parquet: cannot be read"):
        describe("hf_images", SMALL, tmp_path)


def repeated(path, encode, rng, rows):
    """Write a file whose dictionary holds two images that its rows repeat."""
    junk = [rng.bytes(400_000) for _ in range(2)]
    image = encode(np.zeros((4, 4, 3), np.uint8))
    dictionary = pa.DictionaryArray.from_arrays(
        pa.array([0, 1] * (rows // 2), pa.int32()),
        pa.array([image + tail for tail in junk], pa.binary()),
    )
    table = pa.table({"image": dictionary, "label": [0, 1] * (rows // 2)})
    pq.write_table(table, path, store_schema=False)


def test_large_images_repeated_in_every_row_are_unpacked_a_few_at_a_time(tmp_path, encode, rng):
    repeated(tmp_path / "train.parquet", encode, rng, 3000)  # 1.2 GB unpacked
    assert validate("hf_images", SMALL, tmp_path).outputs == 2
    assert pa.default_memory_pool().max_memory() < 600 * 2**20


def test_more_rows_than_bytes_are_refused(tmp_path, encode, rng):
    repeated(tmp_path / "train.parquet", encode, rng, 200_000)
    with pytest.raises(DataError, match="200000 rows are more than its size has room for"):
        describe("hf_images", SMALL, tmp_path)


def test_a_set_beyond_memory_is_refused_before_reading(tmp_path, rng):
    write(tmp_path / "train.parquet", [rng.bytes(40) for _ in range(6000)], [0, 1] * 3000)
    with pytest.raises(SpecError) as caught:
        describe("hf_images", {"size": 512, "channels": 3}, tmp_path)
    assert caught.value.pointer == "/params/size"
    few = {"size": 512, "channels": 3, "train_samples": 10, "test_samples": 9}
    assert describe("hf_images", few, tmp_path)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["cat", "dog"] * 20, ("cat", "dog")),
        ([1.5, 0.5] * 20, ("0.5", "1.5")),
        ([True, False] * 20, ("false", "true")),
        (pa.array(["b", "a"] * 20).dictionary_encode(), ("a", "b")),
        ([1, 2] * 20, ("1", "2")),
    ],
)
def test_labels_of_any_kind_are_classes(tmp_path, images, labels, names):
    write(tmp_path / "train.parquet", images, labels)
    write(tmp_path / "test.parquet", images, labels)
    found = inspect("hf_images", SMALL, tmp_path)
    assert (found.info.outputs, found.info.class_names) == (2, names)
    assert [c.train for c in found.report.classes] == [20, 20]
    given = labels.to_pylist() if isinstance(labels, pa.Array) else labels
    arrays = read(tmp_path)
    for split in (arrays.train, arrays.test):
        assert split.targets.tolist() == [sorted(set(given)).index(label) for label in given]
    other = [*given[1:], "x"] if isinstance(given[0], str) else None
    if other:
        write(tmp_path / "test.parquet", images, other)
        with pytest.raises(DataError, match="label 'x' in row 40 is not among those"):
            describe("hf_images", SMALL, tmp_path)


def test_an_id_is_no_label(tmp_path, images):
    ids = list(range(40))
    table = pa.table({"id": ids, "image": pa.array(images, pa.binary()), "kind": [0, 1, 2, 1] * 10})
    pq.write_table(table, tmp_path / "train.parquet")
    found = inspect("hf_images", SMALL, tmp_path)
    assert (found.info.outputs, found.report.label) == (3, "kind")
    assert found.report.ignored == ["column id"]
    table = table.append_column("shape", pa.array([0, 1] * 20))
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"which column .*`label_column` to one of: kind, shape"):
        describe("hf_images", SMALL, tmp_path)
    assert describe("hf_images", {**SMALL, "label_column": "shape"}, tmp_path).outputs == 2
    old = {**SMALL, "rules": 1}
    assert describe("hf_images", old, tmp_path).outputs == 40


def test_the_size_is_that_of_the_files(tmp_path, images):
    write(tmp_path / "train.parquet", images, [0, 1] * 20)
    found = inspect("hf_images", {}, tmp_path)
    assert found.info.input_shape == (3, 9, 11)
    assert found.settled == {"channels": 3, "size": [9, 11]}
    assert describe("hf_images", {"rules": 1}, tmp_path).input_shape == (3, 32, 32)
