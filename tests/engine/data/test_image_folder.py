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
    inspect,
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


def write(root, encode, names, size=(12, 12, 3)):
    """Write an image at each path of a folder."""
    for at, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(np.full(size, 10 * at, np.uint8)))


def split(name, count):
    return [f"{name}/{label}/{index}.png" for label in "ab" for index in range(count)]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_test_split_has_many_names(tmp_path, encode, name):
    write(tmp_path, encode, split("train", 4) + split(name, 4))
    found = inspect("image_folder", {}, tmp_path)
    assert (found.info.train_samples, found.info.test_samples) == (8, 8)
    assert [s.source for s in found.report.splits] == ["train/<class>/", f"{name}/<class>/"]
    assert [(c.name, c.train, c.test) for c in found.report.classes] == [("a", 4, 4), ("b", 4, 4)]


def test_a_third_split_is_reported_or_chosen(tmp_path, encode):
    write(tmp_path, encode, split("train", 4) + split("val", 3) + split("test", 2))
    found = inspect("image_folder", {}, tmp_path)
    assert found.info.test_samples == 6
    assert found.report.ignored == ["test/: 4 files; `test_split` chooses the test split"]
    assert describe("image_folder", {"test_split": "test"}, tmp_path).test_samples == 4
    with pytest.raises(SpecError) as caught:
        describe("image_folder", {"test_split": "valid"}, tmp_path)
    assert caught.value.pointer == "/params/test_split"


def test_images_in_folders_of_a_class_are_of_the_class(tmp_path, encode):
    write(tmp_path, encode, [*split("train", 4), *split("val", 4), "train/a/sub/9.png"])
    assert describe("image_folder", {}, tmp_path).train_samples == 9
    assert describe("image_folder", {"rules": 1}, tmp_path).train_samples == 8


def test_folders_of_classes_alone_are_split(tmp_path, encode):
    write(tmp_path, encode, [f"{label}/{index}.png" for label in "ab" for index in range(5)])
    arrays = DATASETS["image_folder"].read(ImageFolderParams(), tmp_path)
    assert (len(arrays.train.inputs), len(arrays.test.inputs)) == (8, 2)
    assert len(digest("image_folder", {}, tmp_path)) == 64
    (tmp_path / "a" / "README.md").write_text("about")
    assert inspect("image_folder", {}, tmp_path).report.ignored == ["a/README.md"]


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([(28, 28), (28, 28)], (1, 28, 28)),
        ([(28, 20, 3), (28, 20, 3)], (3, 28, 20)),
        ([(28, 28), (28, 28, 3)], (3, 28, 28)),
        ([(28, 28), (30, 28)], (1, 224, 224)),
        ([(600, 600), (600, 600)], (1, 224, 224)),
    ],
)
def test_size_and_channels_are_those_of_the_files(tmp_path, encode, sizes, shape):
    for name, size in zip("ab", sizes, strict=True):
        write(tmp_path, encode, [f"train/{name}/{index}.png" for index in range(3)], size)
    found = inspect("image_folder", {}, tmp_path)
    assert found.info.input_shape == shape
    again = describe("image_folder", found.settled, tmp_path)
    assert again == found.info
    assert describe("image_folder", {"rules": 1}, tmp_path).input_shape == (3, 224, 224)
    assert describe("image_folder", {"size": (8, 9)}, tmp_path).input_shape[1:] == (8, 9)


def test_progress_is_told(root):
    seen = []
    inspect("image_folder", {}, root, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (24, 24)


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
        describe("image_folder", {}, root / "train" / "ant")
    (root / "val" / "dog").mkdir()
    with pytest.raises(DataError, match="val/dog: train/ has no such class"):
        describe("image_folder", {}, root)
    (root / "val" / "dog").rmdir()
    (root / "train" / "dog").mkdir()
    with pytest.raises(DataError, match="train/dog holds no image"):
        describe("image_folder", {}, root)
    (root / "train" / "dog").rmdir()
    (root / "train" / "bee" / "9.png").write_bytes(b"broken")
    assert describe("image_folder", {"size": 8, "channels": 3}, root).train_samples == 19
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
