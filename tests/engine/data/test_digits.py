"""The digits of scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlhf.core.errors import SpecError
from mlhf.data.params import DigitsParams
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    validate,
)


def read(**params):
    return DATASETS["digits"].read(DigitsParams(**params), None)


def test_both_splits_together_are_the_library_s_data():
    arrays = read()
    info = describe("digits", {})
    assert (info.train_samples, info.test_samples) == (1438, 359)
    assert validate("digits", {}) == info == arrays.info
    images = np.concatenate([arrays.train.inputs, arrays.test.inputs]).reshape(1797, 64)
    ours = sorted(map(bytes, images))
    assert ours == sorted(map(bytes, load_digits().data.astype(np.uint8)))


def test_a_subset_is_part_of_the_whole_and_the_test_split_stays():
    whole, part = read(), read(train_samples=100)
    assert len(part.train.inputs) == part.info.train_samples == 100
    rows = set(map(bytes, whole.train.inputs))
    assert all(bytes(image) in rows for image in part.train.inputs)
    assert np.array_equal(part.test.inputs, whole.test.inputs)
    larger = set(map(bytes, read(train_samples=200).train.inputs))
    assert all(bytes(image) in larger for image in part.train.inputs)


def test_what_meta_training_may_see_and_what_is_compared_make_up_the_whole():
    whole, meta, compare = read(), read(split="meta"), read(split="compare")
    assert (meta.info.train_samples, compare.info.train_samples) == (863, 575)
    assert describe("digits", {"split": "compare"}) == compare.info
    assert np.array_equal(
        np.concatenate([meta.train.inputs, compare.train.inputs]), whole.train.inputs
    )
    assert np.array_equal(meta.test.targets, compare.test.targets)
    few = read(split="compare", train_samples=3)
    assert set(map(bytes, few.train.inputs)) <= set(map(bytes, compare.train.inputs))


def test_too_many_samples_are_refused():
    with pytest.raises(SpecError) as caught:
        describe("digits", {"test_samples": 360})
    assert caught.value.pointer == "/params/test_samples"


def test_the_digest_is_stable():
    assert digest("digits", {}) == digest("digits", {"train_samples": 5})
