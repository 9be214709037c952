"""Saved models give the same outputs after loading, and broken files a clear error."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mlhf.core.config import Component
from mlhf.core.errors import DataError
from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.files import load_model, save_model
from mlhf.models.loss import loss_name

IMAGE = DataInfo("image", (3, 8, 8), 4, "classification", 100, 20, class_names=tuple("abcd"))
VALUES = DataInfo("table", (4,), 2, "regression", 100, 20)
TEXT = DataInfo("text", (6,), 3, "language", 100, 20, vocabulary=3)
CHARACTERS = {
    "layers": [
        {"type": "embedding", "dimension": 3},
        {"type": "lstm", "hidden_size": 4},
        {"type": "linear"},
    ]
}
CASES = {
    "image": (
        "resnet",
        {"depth": 8},
        IMAGE,
        {"kind": "image", "mean": [1.0, 2.0, 3.0], "std": [2.0, 4.0, 8.0]},
    ),
    "table": (
        "mlp",
        {"batch_norm": True, "dropout": 0.5},
        VALUES,
        {
            "kind": "table",
            "mean": [1.0, 2.0, 0.0, 0.0],
            "std": [2.0, 4.0, 1.0, 1.0],
            "target_mean": [10.0, 20.0],
            "target_std": [2.0, 3.0],
            "columns": [
                {"name": "size", "categories": None},
                {"name": "weight", "categories": None},
                {"name": "colour", "categories": ["blue", "red"]},
            ],
        },
    ),
    "text": ("sequential", CHARACTERS, TEXT, {"kind": "text", "characters": "abc"}),
}


def saved(folder, case):
    name, params, info, preprocessing = CASES[case]
    network = build(name, params, info, seed=0)
    with torch.no_grad():  # so that running statistics differ from fresh ones
        for buffer in network.buffers():
            buffer.add_(1)
    model = Component(name=name, params=params)
    save_model(folder, network, model, info, preprocessing, loss_name(info))
    return network.eval()


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_model_gives_the_same_outputs(tmp_path, case):
    network = saved(tmp_path, case)
    loaded = load_model(tmp_path)
    info = CASES[case][2]
    x = torch.randint(3, (5, *info.input_shape))
    prepared = loaded.prepare(x)
    assert torch.equal(loaded.module(prepared), network(prepared))
    assert not loaded.module.training
    assert loaded.info == info
    assert loaded.preprocessing == CASES[case][3]
    assert loaded.loss == loss_name(info)


def test_raw_images_are_normalised(tmp_path):
    saved(tmp_path, "image")
    x = np.full((2, 3, 8, 8), 5, np.uint8)
    loaded = load_model(tmp_path)
    assert loaded.prepare(x)[0, :, 0, 0].tolist() == [2.0, 0.75, 0.25]
    assert loaded.predict(x).dtype == torch.int64


def test_rows_of_a_table_are_encoded_and_targets_come_in_their_units(tmp_path):
    network = saved(tmp_path, "table")
    loaded = load_model(tmp_path)
    rows = [{"size": 3, "weight": 6.0, "colour": "red"}]
    prepared = loaded.prepare(rows)
    assert prepared.tolist() == [[1.0, 1.0, 0.0, 1.0]]
    expected = network(prepared).detach() * torch.tensor([2.0, 3.0]) + torch.tensor([10.0, 20.0])
    torch.testing.assert_close(loaded.predict(rows), expected)
    with pytest.raises(DataError, match="unknown category 'green'"):
        loaded([{**rows[0], "colour": "green"}])
    with pytest.raises(DataError, match="lacks the column 'size'"):
        loaded([{}])


def test_images_are_taken_as_they_are_stored(tmp_path):
    saved(tmp_path, "image")
    loaded = load_model(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = loaded.prepare(pixels.transpose(0, 3, 1, 2))
    pictures = [Image.fromarray(each) for each in pixels]
    encoded = []
    for at, picture in enumerate(pictures):
        picture.save(tmp_path / f"{at}.png")
        encoded.append((tmp_path / f"{at}.png").read_bytes())
    paths = [tmp_path / "0.png", str(tmp_path / "1.png")]
    for given in (pixels, torch.from_numpy(pixels), pictures, encoded, paths):
        assert torch.equal(loaded.prepare(given), expected)
    for single in (pixels[0], pictures[0], encoded[0], paths[0]):
        assert torch.equal(loaded.prepare(single), expected[:1])
    names = loaded.predict_names(paths)
    assert names == ["abcd"[label] for label in loaded.predict(pixels).tolist()]


def test_grey_images_need_no_channel(tmp_path):
    info = DataInfo("image", (1, 8, 8), 4, "classification", 100, 20)
    network = build("mlp", {}, info, seed=0)
    scaling = {"kind": "image", "mean": [1.0], "std": [2.0]}
    save_model(tmp_path, network, Component(name="mlp", params={}), info, scaling, loss_name(info))
    loaded = load_model(tmp_path)
    pixels = np.arange(128, dtype=np.uint8).reshape(2, 8, 8)
    expected = loaded.prepare(pixels[:, None])
    for given in (pixels, pixels[..., None], pixels.tolist()):
        assert torch.equal(loaded.prepare(given), expected)
    assert loaded.predict_names(pixels[0]) == [str(loaded.predict(pixels)[0].item())]


def test_rows_are_taken_as_the_file_holds_them(tmp_path):
    name, params, info, preprocessing = CASES["table"]
    notes = [
        {"name": "size", "categories": None, "format": {"decimal": ",", "thousands": "."}},
        {"name": "weight", "categories": None, "fill": 6.0},
        {"name": "colour", "categories": ["blue", "red"], "missing": True},
    ]
    preprocessing = {**preprocessing, "columns": notes}
    model = Component(name=name, params=params)
    network = build(name, params, info, seed=0)
    save_model(tmp_path, network, model, info, preprocessing, loss_name(info))
    loaded = load_model(tmp_path)
    expected = loaded.prepare([{"size": 1000.5, "weight": 6.0, "colour": "red"}])
    for given in (
        [["1.000,5", "6", "red"]],
        [[1000.5, 6, "red"]],
        {"size": "1.000,5", "weight": None, "colour": "red", "more": 1},
        [{"size": 1000.5, "weight": "NA", "colour": "red"}],
    ):
        assert torch.equal(loaded.prepare(given), expected)
    assert loaded.prepare([["1", "6", ""]])[0, 2:].tolist() == [0, 0]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"colour": ["red"], "size": ["1.000,5"], "weight": [float("nan")]})
    assert torch.equal(loaded.prepare(frame), expected)
    for bad, message in (
        ([[float("nan"), 6, "red"]], "column 'size': the value nan is missing"),
        ([["x", 6, "red"]], "column 'size': 'x' is not a number"),
        ([[1, 6]], r"needed: \(B, 4\)"),
        (np.array([[np.nan, 1, 0, 1]]), "NaN or infinite"),
        ([[1, 2, 3, "a"]], "has 4 values"),
    ):
        with pytest.raises(DataError, match=message):
            loaded.predict(bad)
    with pytest.raises(DataError, match="has no classes"):
        loaded.predict_names([[1, 6, "red"]])


def test_texts_of_any_length_are_taken(tmp_path):
    saved(tmp_path, "text")
    loaded = load_model(tmp_path)
    assert loaded.prepare("cab").tolist() == [[2, 0, 1]]
    assert loaded.predict(["cabca", "aaaaa"]).shape == (2, 5)
    for bad, message in ((["ab", "a"], "one length"), ("xyz", "never seen"), ("", "non-empty")):
        with pytest.raises(DataError, match=message):
            loaded(bad)
    with pytest.raises(DataError, match="between 0 and 2"):
        loaded(torch.tensor([[3]]))


def test_inputs_of_the_wrong_shape_are_refused(tmp_path):
    saved(tmp_path, "image")
    with pytest.raises(DataError, match=r"needed: \(B, \d+, \d+, \d+\)"):
        load_model(tmp_path)(torch.zeros(1, 3, 9, 9))


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, missing):
    saved(tmp_path, "image")
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=missing):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d.pop("data"), "broken"),
        (lambda d: d["model"]["params"].update(depth=9), "broken"),
        (lambda d: d["model"]["params"].update(width=2.0), "broken"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, change, message):
    saved(tmp_path, "image")
    path = tmp_path / "model.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    with pytest.raises(DataError, match=message):
        load_model(tmp_path)


def test_broken_weights_are_refused(tmp_path):
    saved(tmp_path, "image")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="broken"):
        load_model(tmp_path)
