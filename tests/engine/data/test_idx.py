"""IDX files, and the two families made of them."""

import gzip
import struct

import numpy as np
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data import fashion_mnist
from mlhf.data.params import MnistParams
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    validate,
)


def idx(array: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays(rng):
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (30, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(30) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (12, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(12) % 10,
    }


@pytest.fixture(params=["plain", "gz"])
def root(request, tmp_path, arrays):
    for name, array in arrays.items():
        if request.param == "gz":
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (tmp_path / name).write_bytes(idx(array))
    return tmp_path


@pytest.fixture
def plain(tmp_path, arrays):
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_images_and_labels_come_as_written(root, arrays, name):
    found = DATASETS[name].read(MnistParams(), root)
    assert np.array_equal(found.train.inputs[:, 0], arrays["train-images-idx3-ubyte"])
    assert np.array_equal(found.test.targets, arrays["t10k-labels-idx1-ubyte"])
    assert found.info == describe(name, {}, root) == validate(name, {}, root)
    assert found.info.input_shape == (1, 28, 28)
    assert len(digest(name, {}, root)) == 64


def test_half_size_and_a_subset(root):
    found = DATASETS["mnist"].read(MnistParams(size=14, train_samples=7), root)
    assert found.train.inputs.shape == (7, 1, 14, 14)
    assert found.info == describe("mnist", {"size": 14, "train_samples": 7}, root)


def test_the_parts_for_meta_training_and_comparing_do_not_meet(plain, arrays):
    meta, compare = (
        DATASETS["mnist"].read(MnistParams(split=split), plain) for split in ("meta", "compare")
    )
    images = arrays["train-images-idx3-ubyte"]
    assert np.array_equal(meta.train.inputs[:, 0], images[:18])
    assert np.array_equal(compare.train.inputs[:, 0], images[18:])
    assert describe("mnist", {"split": "compare"}, plain) == compare.info
    assert len(meta.test.targets) == len(compare.test.targets) == 12


def test_dots_in_names_are_taken_too(plain):
    for path in list(plain.iterdir()):
        path.rename(plain / path.name.replace("-idx", ".idx"))
    assert describe("mnist", {}, plain).test_samples == 12


def test_too_many_samples_are_refused(plain):
    with pytest.raises(SpecError) as caught:
        describe("mnist", {"train_samples": 31}, plain)
    assert caught.value.pointer == "/params/train_samples"


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
HEAD = bytes((0, 0, 8, 3))
BOMB = HEAD + struct.pack(">3I", 2**31, 28, 28)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"", "not an IDX file"),
        (IMAGES, b"\x89PNG" * 20, "not an IDX file"),
        (IMAGES, idx(np.zeros((30, 28, 28)))[:-1], "truncated|longer"),
        (IMAGES, idx(np.zeros((30, 28, 28))) + b"x", "longer"),
        (IMAGES, idx(np.zeros((30, 28, 27))), "not 28x28"),
        (IMAGES, idx(np.zeros((0, 28, 28))), "holds 0 images"),
        (IMAGES, BOMB, "truncated"),
        (LABELS, idx(np.zeros(29)), "29 labels"),
        (LABELS, idx(np.full(30, 10)), "label 10 is out of range"),
        (LABELS, idx(np.zeros((30, 1))), "not an IDX file"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_broken_files_are_refused(plain, name, content, message, zipped):
    (plain / name).unlink()
    path = plain / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=message):
        validate("mnist", {}, plain)


def test_a_broken_gzip_file_is_refused(plain):
    (plain / IMAGES).unlink()
    whole = gzip.compress(idx(np.zeros((30, 28, 28))))
    for content in (b"not gzip", whole[:40], whole[:-6], whole[:30] + b"\xff" * 20 + whole[50:]):
        (plain / f"{IMAGES}.gz").write_bytes(content)
        with pytest.raises(DataError, match="train-images"):
            validate("mnist", {}, plain)


def test_fashion_mnist_falls_back_to_the_system_s_folder(plain, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", plain)
    empty = tmp_path_factory.mktemp("empty")
    assert describe("fashion_mnist", {}).train_samples == 30
    assert describe("fashion_mnist", {}, empty).train_samples == 30
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", empty)
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        describe("fashion_mnist", {})


@pytest.mark.data
def test_the_system_s_fashion_mnist_is_complete():
    if not fashion_mnist.SYSTEM_FOLDER.is_dir():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    found = DATASETS["fashion_mnist"].read(MnistParams(size=14), None)
    assert np.array_equal(np.bincount(found.train.targets), np.full(10, 6000))
    assert np.array_equal(np.bincount(found.test.targets), np.full(10, 1000))
