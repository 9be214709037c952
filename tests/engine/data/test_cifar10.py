"""CIFAR-10 from binary batches and from Parquet."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlhf.core.errors import DataError, SpecError
from mlhf.data import cifar10
from mlhf.data.params import Cifar10Params
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    validate,
)


def read(root, **params):
    return DATASETS["cifar10"].read(Cifar10Params(**params), root)


@pytest.fixture
def records(rng):
    labels = np.arange(60, dtype=np.uint8) % 10
    return labels, rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def binary(tmp_path, records):
    labels, images = records
    rows = np.concatenate([labels[:, None], images.reshape(60, -1)], 1)
    rows[:20].tofile(tmp_path / "data_batch_1.bin")
    rows[20:50].tofile(tmp_path / "data_batch_2.bin")
    rows[50:].tofile(tmp_path / "test_batch.bin")
    return tmp_path


@pytest.fixture
def parquet(tmp_path, records, encode):
    labels, images = records

    def write(name, rows, **options):
        column = [
            {"bytes": encode(image.transpose(1, 2, 0)), "path": None} for image in images[rows]
        ]
        table = pa.table({"img": column, "label": labels[rows].astype(np.int64)})
        pq.write_table(table, tmp_path / name, **options)

    write("train-00000-of-00002.parquet", slice(0, 20), row_group_size=7)
    write("train-00001-of-00002.parquet", slice(20, 50))
    write("test-00000-of-00001.parquet", slice(50, 60))
    return tmp_path


@pytest.mark.parametrize("form", ["binary", "parquet"])
def test_images_and_labels_come_as_written(form, records, request):
    root = request.getfixturevalue(form)
    labels, images = records
    arrays = read(root)
    assert np.array_equal(arrays.train.inputs, images[:50])
    assert np.array_equal(arrays.train.targets, labels[:50])
    assert np.array_equal(arrays.test.inputs, images[50:])
    assert np.array_equal(arrays.test.targets, labels[50:])
    assert validate("cifar10", {}, root) == describe("cifar10", {}, root) == arrays.info


@pytest.mark.parametrize("form", ["binary", "parquet"])
def test_a_subset_is_drawn_over_all_files(form, records, request):
    labels, images = records
    arrays = read(request.getfixturevalue(form), train_samples=9, test_samples=3)
    chosen = np.sort(np.random.RandomState(0).permutation(50)[:9])
    assert np.array_equal(arrays.train.inputs, images[chosen])
    assert np.array_equal(arrays.train.targets, labels[chosen])
    assert len(arrays.test.inputs) == 3


def test_half_size_is_the_mean_of_squares(binary, records):
    _, images = records
    small = read(binary, size=16).train.inputs
    assert describe("cifar10", {"size": 16}, binary).input_shape == (3, 16, 16)
    exact = images[:50].astype(float).reshape(50, 3, 16, 2, 16, 2).mean((3, 5))
    assert small.shape == exact.shape
    assert np.abs(small - exact).max() <= 0.5


def test_meta_and_compare_share_no_image(tmp_path):
    # 50,000 records in a sparse file; only its tail is not zero.
    for name, count in (("data_batch_1.bin", 50_000), ("test_batch.bin", 10)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(count * 3073)
    parts = {
        split: cifar10._part(Cifar10Params(split=split), 50_000)
        for split in ("all", "meta", "compare")
    }
    assert np.array_equal(np.concatenate([parts["meta"], parts["compare"]]), parts["all"])
    assert describe("cifar10", {"split": "meta"}, tmp_path).train_samples == 30_000
    assert describe("cifar10", {"split": "compare"}, tmp_path).train_samples == 20_000
    with pytest.raises(SpecError) as caught:
        describe("cifar10", {"split": "compare", "train_samples": 20_001}, tmp_path)
    assert caught.value.pointer == "/params/train_samples"


def test_the_authors_folder_is_found(binary, tmp_path):
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for path in binary.glob("*.bin"):
        path.rename(inner / path.name)
    assert describe("cifar10", {}, tmp_path).train_samples == 50


def test_a_part_of_a_part_of_the_set_is_refused(binary):
    with pytest.raises(DataError, match="all 50000 training images, not 50"):
        describe("cifar10", {"split": "meta"}, binary)


def test_a_truncated_batch_is_refused_by_its_size(binary):
    path = binary / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2.bin: truncated"):
        describe("cifar10", {}, binary)


def test_a_label_out_of_range_is_refused(binary):
    path = binary / "test_batch.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError, match="label 10 is out of range"):
        validate("cifar10", {}, binary)


def test_an_image_of_another_size_is_refused(parquet, encode):
    table = pa.table(
        {"img": [{"bytes": encode(np.zeros((31, 32, 3), np.uint8)), "path": ""}], "label": [3]}
    )
    pq.write_table(table, parquet / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="row 0: 32x31 pixels; CIFAR has 32x32"):
        validate("cifar10", {}, parquet)


def test_the_real_files_read_as_pillow_reads_them(real_data):
    root = real_data("cifar10")
    files = sorted(root.glob("train*.parquet"))
    if not files:
        pytest.skip("the real CIFAR-10 is not in Parquet")
    info = describe("cifar10", {}, root)
    assert (info.train_samples, info.test_samples) == (50_000, 10_000)
    arrays = read(root, train_samples=20, test_samples=5)
    rows = np.sort(np.random.RandomState(0).permutation(50_000)[:20])
    table = pq.read_table(files).take(rows)
    for image, label, row in zip(
        arrays.train.inputs, arrays.train.targets, table.to_pylist(), strict=True
    ):
        with Image.open(io.BytesIO(row["img"]["bytes"])) as expected:
            assert np.array_equal(image, np.asarray(expected.convert("RGB")).transpose(2, 0, 1))
        assert label == row["label"]
        path = row["img"]["path"]
        assert path is None or "/" not in path or info.class_names[label] == path.split("/")[0]
    assert len(digest("cifar10", {}, root)) == 64
