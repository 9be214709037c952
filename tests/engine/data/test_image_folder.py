"""A folder of images for each class."""

import numpy as np
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data import image_folder
from mlhf.data.arrays import Lazy
from mlhf.data.params import ImageFolderParams
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    validate,
)


@pytest.fixture
def root(tmp_path, encode):
    """Three classes whose images are of one grey each: 20, 120 and 220."""
    for split, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            pixels = np.full((12, 20, 3), 20 + 100 * label, np.uint8)
            for index in range(count):
                kind = ("JPEG", "PNG")[index % 2]
                (folder / f"{index}.{kind}").write_bytes(encode(pixels, kind))
            (folder / "notes.txt").write_text("not an image")
            (folder / ".hidden.png").write_text("not an image")
    return tmp_path


def read(root, **params):
    return DATASETS["image_folder"].read(ImageFolderParams(size=8, **params), root)


def test_labels_are_the_sorted_folders(root):
    arrays = read(root)
    info = describe("image_folder", {"size": 8}, root)
    assert info == arrays.info == validate("image_folder", {"size": 8}, root)
    assert info.class_names == ("ant", "bee", "cat")
    assert (info.input_shape, info.train_samples, info.test_samples) == ((3, 8, 8), 18, 6)
    for split in (arrays.train, arrays.test):
        greys = split.inputs.mean((1, 2, 3))
        assert np.abs(greys - (20 + 100 * split.targets)).max() < 3


def test_large_sets_are_decoded_batch_by_batch(root, monkeypatch):
    held = read(root)
    monkeypatch.setattr(image_folder, "HELD_BYTES", 1000)
    lazy = read(root)
    assert isinstance(lazy.train.inputs, Lazy)
    assert lazy.train.inputs.length == 18
    rows = np.array([17, 0, 5])
    assert np.array_equal(lazy.train.inputs.get(rows), held.train.inputs[rows])


def test_without_a_test_folder_some_images_are_held_out(root):
    for path in (root / "val").rglob("*"):
        if path.is_file():
            path.unlink()
    for path in (root / "val").iterdir():
        path.rmdir()
    (root / "val").rmdir()
    arrays = read(root, channels=1, test_fraction=1 / 3)
    assert (len(arrays.train.inputs), len(arrays.test.inputs)) == (12, 6)
    assert arrays.info == describe(
        "image_folder", {"size": 8, "channels": 1, "test_fraction": 1 / 3}, root
    )
    assert np.bincount(np.concatenate([arrays.train.targets, arrays.test.targets])).tolist() == (
        [6, 6, 6]
    )


def test_a_subset(root):
    assert read(root, train_samples=5).train.targets.shape == (5,)
    with pytest.raises(SpecError) as caught:
        describe("image_folder", {"test_samples": 7}, root)
    assert caught.value.pointer == "/params/test_samples"


def test_the_digest_of_a_huge_set_needs_no_content(root, monkeypatch):
    before = digest("image_folder", {}, root)
    monkeypatch.setattr(image_folder, "DIGEST_BYTES", 10)
    names_only = digest("image_folder", {}, root)
    assert before != names_only
    (root / "train" / "ant" / "0.JPEG").write_bytes(b"more")
    assert digest("image_folder", {}, root) != names_only


def test_what_is_wrong_is_said(root, tmp_path_factory):
    with pytest.raises(DataError, match="no folder train/"):
        describe("image_folder", {}, root / "train")
    (root / "val" / "dog").mkdir()
    with pytest.raises(DataError, match="val/dog: train/ has no such class"):
        describe("image_folder", {}, root)
    (root / "val" / "dog").rmdir()
    (root / "train" / "dog").mkdir()
    with pytest.raises(DataError, match="train/dog holds no image"):
        describe("image_folder", {}, root)
    (root / "train" / "dog").rmdir()
    (root / "train" / "bee" / "9.png").write_bytes(b"broken")
    assert describe("image_folder", {}, root).train_samples == 19
    with pytest.raises(DataError, match=r"train/bee/9.png: not a readable image"):
        validate("image_folder", {}, root)


def test_a_single_class_is_refused(tmp_path):
    (tmp_path / "train" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match="at least 2"):
        describe("image_folder", {}, tmp_path)


def test_links_are_not_followed(root, tmp_path_factory):
    secret = tmp_path_factory.mktemp("secret") / "secret.png"
    secret.write_bytes(b"x")
    (root / "train" / "ant" / "z.png").symlink_to(secret)
    with pytest.raises(DataError, match="is a link"):
        describe("image_folder", {}, root)
