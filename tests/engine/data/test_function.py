"""Samples of formulas, and regression on them in float64."""

import numpy as np
import pytest
import torch

from mlhf import load_model, train
from mlhf.core.errors import SpecError
from mlhf.data.loading import load
from mlhf.data.specs import DATASETS

PARAMS = {"expressions": ["sin(pi*x1)*x2", "x1"], "train_samples": 50, "test_samples": 20}


def test_values_are_those_of_the_formulas_to_rounding():
    data = load("function", PARAMS, dtype="float64")
    x, y = data.batch("train", torch.arange(50))
    assert (x.dtype, y.dtype) == (torch.float64, torch.float64)
    fitted = {k: np.array(v) for k, v in data.preprocessing.items() if k != "kind"}
    points = x.numpy() * fitted["std"] + fitted["mean"]
    values = y.numpy() * fitted["target_std"] + fitted["target_mean"]
    expected = np.stack([np.sin(np.pi * points[:, 0]) * points[:, 1], points[:, 0]], 1)
    assert np.allclose(values, expected, rtol=1e-13, atol=1e-13)
    assert load("function", PARAMS).batch("test", torch.arange(3))[0].dtype == torch.float32
    again = load("function", {**PARAMS, "seed": 1}, dtype="float64").batch("train", torch.arange(5))
    assert not torch.equal(again[0], x[:5])


@pytest.mark.parametrize(
    ("params", "pointer", "message"),
    [
        ({"expressions": ["x3"]}, "/params", "'x3' at character 1; known are x1, x2"),
        ({"expressions": ["log(x1)"], "domain": [-1, 1]}, "/params/expressions", "no finite value"),
        ({"domain": [1, 1]}, "/params/domain", "not below"),
        ({"expressions": []}, "/params/expressions", "at least 1"),
        ({"train_samples": 10**7}, "/params/train_samples", "at most"),
    ],
)
def test_what_cannot_be_drawn_is_refused(params, pointer, message):
    with pytest.raises(SpecError, match=message) as error:
        DATASETS["function"].read(DATASETS.parse("function", params), None)
    assert error.value.pointer == pointer


def test_a_run_in_float64_measures_the_relative_error_and_keeps_its_digits(tmp_path):
    result = train(
        {
            "model": {"name": "mlp", "params": {"hidden": [8], "activation": "tanh"}},
            "dataset": {"name": "function", "params": {**PARAMS, "expressions": ["exp(x1)+x2+5"]}},
            "optimizer": {"name": "gauss_newton"},
            "budget": {"steps": 60},
            "batch_size": 50,
            "dtype": "float64",
            "device": "cpu",
            "target": {"metric": "test_relative_l2", "value": 1e-4},
        },
        run_dir=tmp_path,
    )
    assert next(result.model.parameters()).dtype == torch.float64
    assert result.summary["train_relative_l2"]["last"] < 1e-4
    network = load_model(tmp_path / "artifacts")
    points = np.random.RandomState(1).random_sample((200, 2))
    values = np.exp(points[:, :1]) + points[:, 1:] + 5
    found = network.predict(points)
    assert found.dtype == torch.float64
    error = np.linalg.norm(found.numpy() - values) / np.linalg.norm(values)
    assert error == pytest.approx(result.summary["test_relative_l2"]["last"], rel=1.0, abs=1e-6)
