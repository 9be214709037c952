"""Each kind of target and loss as a run: trained, measured, saved, and read back to predict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mlhf
from mlhf.core.errors import DataError, SpecError
from mlhf.data.cache import DataCache
from mlhf.data.loading import load
from mlhf.data.specs import inspect
from mlhf.training.run import train


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def run(folder: Path, arrays, layers, loss=None, optimizer="mlhf", steps=12, **params) -> Any:
    """Train on arrays; returns the result, and the model that was saved."""
    np.savez(folder / "data.npz", **arrays)
    model = layers if isinstance(layers, dict) else {"name": "sequential"}
    if not isinstance(layers, dict):
        model["params"] = {"layers": layers}
    config = {
        "model": model,
        "dataset": {"name": "npz", "params": params, "root": str(folder)},
        "optimizer": {"name": optimizer}
        if isinstance(optimizer, str)
        else dict(zip(("name", "params"), optimizer, strict=True)),
        "budget": {"steps": steps},
        "batch_size": 16,
        **({} if loss is None else {"loss": loss}),
    }
    result = train(config, run_dir=folder / "run")
    assert result.status == "succeeded", result.reason
    return result, mlhf.load_model(folder / "run" / "artifacts")


def last(result, metric):
    return result.summary[metric]["last"]


DENSE = [{"type": "linear", "out_features": 8}, {"type": "activation", "function": "tanh"}]
TABLE = [*DENSE, {"type": "linear"}]


def conv(channels):
    return {"type": "conv2d", "out_channels": channels, "kernel_size": 3, "padding": 1}


def test_smoothing_and_weights_of_classes_and_samples(tmp_path, rng):
    x = rng.normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    w = np.where(np.arange(60) % 2, 0.0, 3.0)
    y[1::2] = 2  # wrong labels of no weight
    loss = {
        "name": "cross_entropy",
        "params": {"label_smoothing": 0.05, "class_weights": [1.0, 1.0, 2.0]},
    }
    result, model = run(
        tmp_path, {"x": x, "y": y, "w": w}, TABLE, loss, steps=40, sample_weights="w"
    )
    clean = slice(None, None, 2)
    right = (model.predict(x[clean]).numpy() == y[clean]).mean()
    assert right > 0.85, "what has no weight was not learned"
    assert model.loss == "cross_entropy"
    assert model.loss_params["class_weights"] == [1.0, 1.0, 2.0]
    # The test loss is the weighted mean, by torch itself.
    data = result.dataset
    inputs, (labels, weights) = data.batch("test", torch.arange(data.size("test")))
    each = nn.functional.cross_entropy(
        result.model(inputs),
        labels,
        weight=torch.tensor([1.0, 1.0, 2.0]),
        label_smoothing=0.05,
        reduction="none",
    )
    norms = torch.tensor([1.0, 1.0, 2.0])[labels] * weights
    expected = float(((each * weights).sum() / norms.sum()).detach())
    assert last(result, "test_loss") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["huber", "quantile", "poisson"])
def test_numbers_with_outliers_quantiles_and_counts(tmp_path, rng, name):
    x = rng.normal(size=(120, 2))
    y = np.stack([3 * x[:, 0] + 10, x[:, 1]], 1) + 0.1 * rng.normal(size=(120, 2))
    if name == "poisson":
        y = rng.poisson(np.exp(1 + 0.5 * x)).astype(float)
    params = {"quantile": {"quantiles": [0.1, 0.9]}}.get(name, {})
    result, model = run(
        tmp_path, {"x": x, "y": y}, TABLE, {"name": name, "params": params}, steps=60
    )
    found = model.predict(x).numpy()
    if name == "huber":
        assert np.abs(found - y).mean() < 0.5
        assert last(result, "test_relative_l2") < 0.2
    elif name == "poisson":
        assert (found > 0).all()
        assert np.corrcoef(found[:, 0], np.exp(1 + 0.5 * x[:, 0]))[0, 1] > 0.8
    else:  # two quantiles of each of two targets
        assert found.shape == (120, 4)
        below = [(y[:, 0] < found[:, i]).mean() for i in (0, 1)]
        assert below[0] < 0.35
        assert below[1] > 0.65


def test_two_classes_by_one_output(tmp_path, rng):
    x = rng.normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int)
    loss = {"name": "binary_cross_entropy", "params": {"positive_weights": [2.0]}}
    result, model = run(tmp_path, {"x": x, "y": y}, TABLE, loss, optimizer="kfac", steps=40)
    assert model.module(torch.zeros(1, 3)).shape == (1, 1)
    assert (model.predict(x).numpy() == y).mean() > 0.9
    assert last(result, "test_accuracy") > 0.8


def test_classes_of_pixels_with_unlabelled_ones(tmp_path, rng):
    x = rng.normal(size=(40, 6, 6)).astype(np.float32)
    y = (x > 0).astype(np.uint8)
    y[:, :2] = 255
    result, model = run(
        tmp_path, {"x": x, "y": y}, [conv(4), conv(2)], steps=20, optimizer="mlhf", ignore_index=255
    )
    found = model.predict(x)
    assert found.shape == (40, 6, 6)
    assert (found.numpy()[:, 2:] == y[:, 2:]).mean() > 0.9
    assert last(result, "test_accuracy") > 0.9


def test_images_to_images(tmp_path, rng):
    x = rng.integers(0, 256, (40, 3, 6, 6), dtype=np.uint8)
    y = (255.0 - x[:, :2]).transpose(0, 2, 3, 1)  # channels last
    result, model = run(tmp_path, {"x": x, "y": y}, [conv(2)], {"name": "huber"}, steps=60)
    found = model.predict(x).numpy()
    assert found.shape == (40, 2, 6, 6)
    assert np.abs(found - y.transpose(0, 3, 1, 2)).mean() < 20
    assert last(result, "test_relative_l2") < 0.2


def test_labels_of_pixels_yes_or_no(tmp_path, rng):
    x = rng.normal(size=(30, 5, 5)).astype(np.float32)
    y = np.stack([x > 0, x > 1], 1).astype(int)
    _, model = run(tmp_path, {"x": x, "y": y}, [conv(2)], steps=20, task="multilabel")
    assert (model.predict(x).numpy() == y).mean() > 0.85


def test_steps_of_sequences_with_padding(tmp_path, rng):
    x = rng.normal(size=(40, 7, 2)).astype(np.float32)
    y = (x[..., 0] > 0).astype(int)
    y[:, 5:] = -100
    layers = [{"type": "lstm", "hidden_size": 6}, {"type": "linear"}]
    result, model = run(
        tmp_path, {"x": x, "y": y}, layers, steps=25, inputs="sequence", ignore_index=-100
    )
    assert model.predict(x).shape == (40, 7)
    assert last(result, "test_accuracy") > 0.8
    # Numbers of each step, and one class a sequence.
    _, model = run(
        tmp_path, {"x": x, "y": 5 + x.sum(-1, keepdims=True)}, layers, inputs="sequence", steps=25
    )
    assert model.predict(x).shape == (40, 7, 1)
    assert model.predict(x).mean() == pytest.approx(5, abs=0.7)


def test_one_label_of_tokens(tmp_path, rng):
    x = rng.integers(0, 9, (50, 4))
    y = (x[:, 0] > 4).astype(int)
    layers = [{"type": "embedding", "dimension": 4}, {"type": "flatten"}, {"type": "linear"}]
    result, model = run(tmp_path, {"x": x, "y": y}, layers, steps=30, inputs="tokens")
    assert (model.predict(x).numpy() == y).mean() > 0.9
    assert result.dataset.info.vocabulary == 9
    with pytest.raises(DataError, match="not texts"):
        model.predict(["abcd"])
    with pytest.raises(DataError, match="between 0 and 8"):
        model.predict([[9, 0, 0, 0]])


class TwoHeads(nn.Module):
    """Outputs that are a mapping: one vector, one map."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, padding=1)
        self.map = nn.Conv2d(4, 2, 1)
        self.size = nn.Linear(4, 1)

    def forward(self, image):
        features = torch.tanh(self.body(image))
        return {"mask": self.map(features), "size": self.size(features.mean((2, 3)))}


@pytest.mark.parametrize("optimizer", ["mlhf", "kfac", "adamw"])
def test_several_heads_of_a_graph(tmp_path, rng, optimizer):
    x = rng.normal(size=(30, 5, 5)).astype(np.float32)
    arrays = {"x": x, "y_mask": (x > 0).astype(int), "y_size": 7 + 2 * x.mean((1, 2))}
    torch.manual_seed(0)
    network = mlhf.trace(TwoHeads(), torch.randn(2, 1, 5, 5)).save(tmp_path / "net")
    model = {"name": "graph", "params": {"network": str(network)}}
    loss = {"name": "heads", "params": {"heads": {"size": {"weight": 3.0}}}}
    result, loaded = run(tmp_path, arrays, model, loss, optimizer, steps=15)
    found = loaded.predict(x)
    assert found["mask"].shape == (30, 5, 5)
    assert found["size"].shape == (30, 1)
    assert found["size"].mean() == pytest.approx(7, abs=1)
    total = last(result, "test_mask_loss") + 3 * last(result, "test_size_loss")
    assert last(result, "test_loss") == pytest.approx(total)
    assert {"test_mask_accuracy", "test_size_relative_l2"} <= set(result.summary)


def test_a_network_whose_heads_do_not_fit_is_refused(tmp_path, rng):
    x = rng.normal(size=(30, 5, 5)).astype(np.float32)
    arrays = {"x": x, "y_mask": np.arange(750).reshape(30, 5, 5) % 3, "y_size": x.mean((1, 2))}
    network = mlhf.trace(TwoHeads(), torch.randn(2, 1, 5, 5)).save(tmp_path / "net")
    model = {"name": "graph", "params": {"network": str(network)}}
    with pytest.raises(SpecError, match=r"gives as 'mask' \(2, 5, 5\)") as error:
        run(tmp_path, arrays, model)
    assert error.value.pointer == "/model/params/network"


def test_the_same_batches_from_the_cache(tmp_path, rng):
    x = rng.normal(size=(30, 4))
    np.savez(
        tmp_path / "d.npz",
        x=x,
        y_a=rng.poisson(1.0, 30).astype(float),
        y_b=np.arange(30) % 2,
        w=x[:, 0] ** 2,
    )
    options = {"root": tmp_path / "d.npz", "raw_targets": ["a"]}
    params = {"sample_weights": "w"}
    first = load("npz", params, **options)
    cache = DataCache(tmp_path / "cache")
    for _ in range(2):
        again = load("npz", params, cache=cache, **options)
        for mine, other in zip(
            again.batch("test", torch.arange(6)), first.batch("test", torch.arange(6)), strict=True
        ):
            for a, b in zip(
                torch.utils._pytree.tree_leaves(mine),
                torch.utils._pytree.tree_leaves(other),
                strict=True,
            ):
                assert torch.equal(a, b)
    _, (_, weights) = first.batch("train", torch.arange(24))
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("arrays", "params", "words"),
    [
        ({"y": np.zeros((20, 5, 4), int)}, {}, "one at each position has the shape"),
        ({"y": np.full((20, 5, 5), 255)}, {"ignore_index": 255}, "every label is 255"),
        ({"y": np.zeros((20, 5, 5), int)}, {}, "all labels are 0"),
        ({"y": np.arange(500).reshape(20, 5, 5) % 3 - 1}, {}, "label -1 is out of range"),
        ({"y": np.ones((20, 5, 5)) * 0.5}, {"ignore_index": 0}, "only classes"),
        ({"y": np.zeros((20, 3, 5, 5))}, {"task": "classification"}, "are no classes"),
        ({"y": np.ones((20, 2, 5, 5)) * 2}, {"task": "multilabel"}, "values of 0 and 1"),
        ({"y": np.arange(20) % 2, "w": -np.ones(20)}, {"sample_weights": "w"}, "0 and more"),
        ({"y": np.arange(20) % 2, "w": np.zeros(20)}, {"sample_weights": "w"}, "weights are 0"),
        ({"y": np.arange(20) % 2, "w": np.ones(19)}, {"sample_weights": "w"}, "has 19"),
        ({"y": np.arange(20) % 2, "w": np.ones((20, 2))}, {"sample_weights": "w"}, "shape (N,)"),
        ({"y": np.arange(20) % 2}, {"sample_weights": "v"}, "there is no array v"),
        ({"y": np.arange(20) % 2}, {"inputs": "tokens"}, "no tokens"),
        ({"y_a": np.arange(20) % 2, "y_b": np.ones(20)}, {"task": "regression"}, "several targets"),
    ],
)
def test_odd_arrays_are_refused_in_a_sentence(tmp_path, arrays, params, words):
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(20, 5, 5)), **arrays)
    with pytest.raises((DataError, SpecError)) as error:
        inspect("npz", params, tmp_path)
    assert words in str(error.value)
    with pytest.raises((DataError, SpecError)):
        load("npz", params, tmp_path)


def test_a_table_with_a_column_of_weights(tmp_path):
    rows = [f"{i % 7},{i % 3},{(i * 37) % 5 / 2}" for i in range(40)]
    (tmp_path / "t.csv").write_text("x,count,w\n" + "\n".join(rows))
    params = {"target": "count", "task": "regression", "sample_weights": "w"}
    found = inspect("table", params, tmp_path)
    assert found.info.weighted
    assert found.info.least == 0
    assert found.info.input_shape == (1,), "the weights are no input"
    assert [c.role for c in found.report.columns] == ["input", "target", "weight"]
    data = load("table", params, tmp_path, raw_targets=[""])
    _, (counts, weights) = data.batch("train", torch.arange(32))
    assert set(counts.flatten().tolist()) == {0, 1, 2}, "in their own units"
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)
    for name, words in (
        ("count", "a column to predict"),
        ("ww", "did you mean 'w'"),
    ):
        with pytest.raises(SpecError, match=words) as error:
            inspect("table", {**params, "sample_weights": name}, tmp_path)
        assert error.value.pointer == "/params/sample_weights"
    (tmp_path / "t.csv").write_text("x,count,w\n" + "\n".join(rows) + "\n1,1,-1")
    with pytest.raises(DataError, match="0 and more"):
        inspect("table", params, tmp_path)


def test_a_split_without_a_label_that_counts_is_not_measured(tmp_path, rng):
    x = rng.normal(size=(30, 3))
    y = np.where(np.arange(20) % 2, -7, np.arange(20) % 4)
    arrays = {"x_train": x[:20], "y_train": y, "x_test": x[20:], "y_test": np.full(10, -7)}
    result, _ = run(tmp_path, {"x": x, **arrays}, TABLE, ignore_index=-7)
    assert "test_loss" not in result.summary
    assert np.isfinite(last(result, "train_loss"))


def test_what_cannot_be_trained_together_is_refused_before(tmp_path, rng):
    x = rng.normal(size=(30, 6, 6)).astype(np.float32)
    with pytest.raises(SpecError, match="resnet gives one vector"):
        run(tmp_path, {"x": x, "y": (x > 0).astype(int)}, {"name": "resnet"})
    heads = {"x": x[:, 0], "y_a": np.arange(30) % 2, "y_b": np.arange(30) / 30}
    with pytest.raises(SpecError, match="computed in parts") as error:
        run(tmp_path, heads, TABLE, optimizer=("hf_adam", {"micro_batch": 4}))
    assert error.value.pointer == "/optimizer/params/micro_batch"


@pytest.mark.parametrize("loss", ["poisson", "huber"])
def test_of_whole_numbers_that_are_read_as_classes_it_is_told(loss, tmp_path, rng):
    counts = {"x": rng.normal(size=(40, 2)), "y": rng.poisson(2.0, 40)}
    with pytest.raises(SpecError, match="task: regression"):
        run(tmp_path, counts, TABLE, {"name": loss})
    run(tmp_path, counts, TABLE, {"name": loss}, task="regression")


def test_steps_that_become_others_are_recorded(tmp_path, rng, points):
    """Those of full batches, after the first ten: what they tell is other than before."""
    x = rng.random((50, 3))
    arrays = {"x": x, "y": np.sin(3 * x[:, 0]) * x[:, 1], "x_test": x[:9], "y_test": x[:9, 0]}
    events: list = []
    np.savez(tmp_path / "data.npz", **arrays)
    config = {
        "model": {"name": "sequential", "params": {"layers": TABLE}},
        "dataset": {"name": "npz", "root": str(tmp_path)},
        "optimizer": {"name": "mlhf"},
        "budget": {"steps": 25},
        "batch_size": 50,
    }
    result = train(config, run_dir=tmp_path / "run", on_event=events.append)
    assert result.status == "succeeded", result.reason
    found = [values for _, values in points(events)]
    counts = {n: sum(n in v for v in found) for n in ("momentum", "step_length", "damping")}
    assert counts == {"momentum": 10, "step_length": 15, "damping": 25}
