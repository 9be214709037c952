"""Means and deviations, against NumPy's."""

import json

import numpy as np
import pytest

from mlhf.data import preprocessing
from mlhf.data.arrays import Arrays, Lazy, Split
from mlhf.data.info import DataInfo


def arrays(inputs, targets=None, scaled=None, task="classification"):
    kind = "table" if inputs.ndim == 2 else "image"
    info = DataInfo(kind, inputs.shape[1:], 2, task, len(inputs), 1)
    split = Split(inputs, np.zeros(len(inputs), int) if targets is None else targets)
    return Arrays(info, split, split, scaled)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_moments_are_numpy_s(rng, monkeypatch, kind, block):
    monkeypatch.setattr(preprocessing, "_BLOCK_VALUES", block)
    images = rng.integers(0, 256, (30, 3, 4, 5)).astype(kind)
    fitted = json.loads(json.dumps(preprocessing.fit(arrays(images))))
    np.testing.assert_allclose(fitted["mean"], images.mean((0, 2, 3), np.float64))
    np.testing.assert_allclose(fitted["std"], images.std((0, 2, 3), np.float64))


def test_large_offsets_lose_no_precision(rng):
    values = 1e9 + rng.normal(size=(1000, 2))
    fitted = preprocessing.fit(arrays(values))
    done = preprocessing.standardised(values, np.array(fitted["mean"]), np.array(fitted["std"]))
    assert done.dtype == np.float32
    np.testing.assert_allclose(done.std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(done.mean(0), 0, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1, -3.7e-8])
def test_a_constant_column_becomes_zero(value):
    values = np.full((1001, 1), value)
    fitted = preprocessing.fit(arrays(values))
    assert fitted["std"] == [1.0]
    done = preprocessing.standardised(values, np.array(fitted["mean"]), np.array(fitted["std"]))
    assert np.abs(done).max() < 1e-6


def test_constant_images_are_not_divided_by_zero():
    assert preprocessing.fit(arrays(np.full((5, 1, 2, 2), 9, np.uint8)))["std"] == [1.0]


def test_one_hot_columns_stay_as_they_are(rng):
    values = np.stack([rng.normal(size=50), rng.integers(0, 2, 50)], 1)
    fitted = preprocessing.fit(arrays(values, scaled=np.array([True, False])))
    assert (fitted["mean"][1], fitted["std"][1]) == (0.0, 1.0)
    assert fitted["std"][0] != 1.0


def test_regression_targets_are_standardised_too(rng):
    targets = rng.normal(5, 2, (50, 2))
    fitted = preprocessing.fit(arrays(rng.normal(size=(50, 3)), targets, task="regression"))
    np.testing.assert_allclose(fitted["target_mean"], targets.mean(0))
    np.testing.assert_allclose(fitted["target_std"], targets.std(0))


def test_lazy_images_are_sampled(rng, monkeypatch):
    monkeypatch.setattr(preprocessing, "_SAMPLE", 10)
    images = rng.integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    asked = []

    def get(rows):
        asked.append(rows)
        return images[rows]

    whole = arrays(images)
    lazy = Arrays(whole.info, Split(Lazy(get, 40), whole.train.targets), whole.test)
    fitted = preprocessing.fit(lazy)
    (rows,) = asked
    assert len(rows) == 10
    np.testing.assert_allclose(fitted["mean"], images[rows].mean((0, 2, 3)))
