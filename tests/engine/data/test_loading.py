"""Batches of tensors, for every kind of data."""

import json

import numpy as np
import pytest
import torch

from mlhf.core.errors import DataError, SpecError
from mlhf.data import image_folder
from mlhf.data.loading import load


def everything(data, split):
    return data.batch(split, torch.arange(data.size(split)), torch.device("cpu"))


NAMES = ["digits", "image_folder", "values", "floats", "table", "text"]


def loaded(sets, name, **params):
    given, root = sets[name]
    family = {"values": "npz", "floats": "npz"}.get(name, name)
    return load(family, {**given, **params}, root)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_types_and_sizes_are_as_the_info_says(sets, name):
    data = loaded(sets, name)
    info = data.info
    assert (data.size("train"), data.size("test")) == (info.train_samples, info.test_samples)
    for split in ("train", "test"):
        x, y = everything(data, split)
        assert x.shape == (data.size(split), *info.input_shape)
        assert x.dtype == (torch.int64 if info.kind == "text" else torch.float32)
        if info.task == "regression":
            assert (y.shape, y.dtype) == ((data.size(split), info.outputs), torch.float32)
        else:
            assert y.dtype == torch.int64
            assert y.min() >= 0
            assert y.max() < info.outputs
    assert json.loads(json.dumps(data.preprocessing, allow_nan=False)) == data.preprocessing


@pytest.mark.parametrize("name", ["digits", "image_folder", "values", "floats"])
def test_the_train_split_has_mean_zero_and_deviation_one(sets, name):
    data = loaded(sets, name)
    x, y = everything(data, "train")
    axes = (0, *range(2, x.ndim))
    torch.testing.assert_close(x.mean(axes), torch.zeros(x.shape[1]), atol=1e-5, rtol=0)
    deviation = x.square().mean(axes).sqrt()
    torch.testing.assert_close(deviation, torch.ones(x.shape[1]), atol=1e-4, rtol=0)
    if data.info.task == "regression":
        torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=1e-5, rtol=0)


def test_one_hot_inputs_stay_zeros_and_ones(sets):
    x, _ = everything(loaded(sets, "table"), "train")
    assert set(x[:, 1:].unique().tolist()) == {0.0, 1.0}
    assert x[:, 1:].sum(1).eq(1).all()


def test_text_targets_are_the_next_tokens(sets):
    data = loaded(sets, "text")
    x, y = everything(data, "train")
    assert torch.equal(x[:, 1:], y[:, :-1])
    text = "".join(data.preprocessing["characters"][i] for i in [*x[0].tolist(), int(y[0, -1])])
    assert text == "hello worl"


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_the_same_whatever_the_order_and_changes_nothing(sets, name):
    data = loaded(sets, name)
    x, y = everything(data, "train")
    rows = torch.tensor([5, 0, 5])
    for _ in range(2):
        x_part, y_part = data.batch("train", rows, "cpu")
        assert torch.equal(x_part, x[rows])
        assert torch.equal(y_part, y[rows])
        if x_part.dtype == torch.float32:
            x_part.fill_(9)


@pytest.mark.parametrize("name", NAMES)
def test_a_subset_is_part_of_the_whole(sets, name):
    part = loaded(sets, name, train_samples=4, test_samples=2)
    assert (part.size("train"), part.size("test")) == (4, 2)
    again = loaded(sets, name, train_samples=4, test_samples=2)
    assert torch.equal(everything(part, "train")[0], everything(again, "train")[0])


def test_lazy_images_give_the_same_batches(images, monkeypatch):
    held = load("image_folder", {"size": 8}, images)
    monkeypatch.setattr(image_folder, "HELD_BYTES", 10)
    lazy = load("image_folder", {"size": 8}, images)
    rows = torch.tensor([19, 3])
    for one, other in zip(
        held.batch("train", rows, "cpu"), lazy.batch("train", rows, "cpu"), strict=True
    ):
        assert torch.equal(one, other)


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(SpecError) as caught:
        load("nothing", {})
    assert caught.value.pointer == "/name"
    with pytest.raises(DataError):
        load("npz", {}, str(tmp_path))


def test_loading_leaves_the_random_state_alone(sets):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for name in NAMES:
        loaded(sets, name)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
