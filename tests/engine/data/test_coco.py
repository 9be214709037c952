"""Images with boxes as COCO stores them, sound and odd."""

import json

import numpy as np
import pytest
from PIL import Image

from mlhf.core.errors import DataError, SpecError
from mlhf.data.params import CocoParams
from mlhf.data.specs import DATASETS, describe, digest, inspect


def write(folder, sizes=((20, 10),) * 6, boxes=None, name="instances.json", **changes):
    """Images of these widths and heights, each with boxes [x, y, w, h, category]."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    boxes = boxes if boxes is not None else [[[2, 1, 8, 4, 7]], [], *[[[0, 0, 5, 5, 3]]] * 4]
    images, annotations = [], []
    for at, (width, height) in enumerate(sizes):
        file = f"{name[:2]}{at}.png"
        Image.fromarray(np.full((height, width), 40 * at, np.uint8)).save(folder / "images" / file)
        images.append({"id": 10 + at, "file_name": file, "width": width, "height": height})
        for *box, category in boxes[at]:
            annotations.append({"image_id": 10 + at, "category_id": category, "bbox": box})
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        **changes,
    }
    (folder / name).write_text(json.dumps(document))
    return folder


ONE = {"image_id": 10, "category_id": 3, "bbox": [0, 0, 5, 5]}


def read(folder, **params):
    return DATASETS["coco"].read(CocoParams(**params), folder)


def test_boxes_are_in_pixels_of_the_decoded_images(tmp_path):
    write(tmp_path)
    found = inspect("coco", {}, tmp_path)
    info = found.info
    assert (info.task, info.outputs, info.boxes) == ("detection", 2, 1)
    assert info.class_names == ("dog", "cat"), "in the order of their ids"
    assert info.input_shape == (1, 10, 20)
    assert describe("coco", {}, tmp_path) == info
    assert found.report.converted == [
        "instances.json: 1 images without a box, which are background"
    ]
    arrays = read(tmp_path, size=40, test_fraction=0.5)
    rows = np.concatenate([arrays.train.targets, arrays.test.targets])
    cat = next(row for row in rows.reshape(-1, 5) if row[4] == 1)
    np.testing.assert_allclose(cat, [4, 4, 20, 20, 1])  # stretched by 2 and 4
    assert (rows[..., 4] == -100).sum() == 1, "the image without a box"
    assert arrays.info.input_shape == (1, 40, 40)
    assert digest("coco", {}, tmp_path) == digest("coco", {}, tmp_path)


def test_two_documents_are_the_two_splits(tmp_path):
    write(tmp_path, name="train.json")
    write(tmp_path, name="val.json", sizes=((20, 10),) * 2, boxes=[[[1, 1, 2, 2, 3]], []])
    info = inspect("coco", {}, tmp_path).info
    assert (info.train_samples, info.test_samples) == (6, 2)
    arrays = read(tmp_path)
    assert arrays.train.targets.shape == (6, 1, 5)


def test_boxes_over_the_edge_are_cut_and_crowds_and_flat_ones_left_out(tmp_path):
    write(
        tmp_path,
        boxes=[[[-3, -2, 8, 50, 7]], [[1, 1, 0, 4, 7]], *[[[0, 0, 5, 5, 3]]] * 4],
    )
    document = json.loads((tmp_path / "instances.json").read_text())
    document["annotations"][2]["iscrowd"] = 1
    (tmp_path / "instances.json").write_text(json.dumps(document))
    report = inspect("coco", {}, tmp_path).report
    assert report.ignored == [
        "instances.json: 1 boxes of crowds (iscrowd)",
        "instances.json: 1 boxes without an area",
    ]
    arrays = read(tmp_path)
    rows = np.concatenate([arrays.train.targets, arrays.test.targets]).reshape(-1, 5)
    np.testing.assert_allclose(next(row for row in rows if row[4] == 1), [0, 0, 5, 10, 1])


@pytest.mark.parametrize(
    ("boxes", "changes", "words"),
    [
        ([[[25, 0, 5, 5, 3]]], {}, "lies outside of the image of 20×10 pixels"),
        ([[[0, 0, 5, 5, 4]]], {}, "the category 4, which is not listed"),
        ([[[0, 0, -5, 5, 3]]], {}, "bbox should be [x, y, width, height]"),
        ([[[0, 0, "5", 5, 3]]], {}, "bbox should be"),
        ([[[0, 0, 1e300, 5, 3]]], {}, "bbox should be"),
        ([[]], {}, "no image has a box"),
        ([[[0, 0, 5, 5, 3]] * 1001], {}, "1001 boxes; at most 1000"),
        ([[]], {"categories": None}, "categories is missing"),
        ([[]], {"categories": []}, "from 1 to"),
        ([[]], {"categories": [{"id": 1}, {"id": 1}]}, "two categories have the id 1"),
        ([[]], {"images": []}, "has no images"),
        (
            [[]],
            {"images": [{"id": 10, "file_name": "../../etc/passwd"}], "annotations": [ONE]},
            "not among the files",
        ),
        ([[]], {"images": [{"id": "a", "file_name": "in0.png"}]}, "no whole number as id"),
        ([[]], {"images": [{"id": 1}]}, "images/0 has no file_name"),
        ([[]], {"images": [3]}, "images/0 is no object"),
        ([[]], {"annotations": [{"image_id": 99, "category_id": 3}]}, "image 99, which is not"),
    ],
)
def test_odd_documents_are_refused_in_a_sentence(tmp_path, boxes, changes, words):
    write(
        tmp_path,
        sizes=((20, 10),) * 4,
        boxes=boxes + [[[0, 0, 5, 5, 3]] * bool(boxes[0])] * 3,
        **changes,
    )
    with pytest.raises(DataError) as error:
        inspect("coco", {}, tmp_path)
    assert words in str(error.value)


def test_which_document_is_meant_can_be_said(tmp_path):
    write(tmp_path, name="a.json")
    write(tmp_path, name="b.json")
    with pytest.raises(SpecError, match="several"):
        inspect("coco", {}, tmp_path)
    assert inspect("coco", {"annotations": "b.json"}, tmp_path).info.train_samples == 5
    with pytest.raises(SpecError, match="no 'c"):
        inspect("coco", {"annotations": "c.json"}, tmp_path)
    (tmp_path / "b.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="no JSON"):
        inspect("coco", {"annotations": "b.json"}, tmp_path)
    for path in tmp_path.glob("*.json"):
        path.unlink()
    with pytest.raises(DataError, match="beside the images"):
        inspect("coco", {}, tmp_path)
