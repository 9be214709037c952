"""Down-sampling keeps what a reader of a curve must not miss."""

import numpy as np
import pytest

from mlhf_service.runs.downsample import MIN_POINTS, extremes, select

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.floats(), max_size=300), st.integers(MIN_POINTS, 80))
def test_bounds_and_order_hold_for_any_curve(values: list[float], limit: int) -> None:
    kept = select(np.array(values), limit)
    assert len(kept) <= limit
    assert len(kept) == len(values) or len(values) > limit
    assert np.all(np.diff(kept) > 0)
    if values:
        assert kept[0] == 0
        assert kept[-1] == len(values) - 1


@given(st.lists(FINITE, min_size=1, max_size=300), st.integers(MIN_POINTS, 80))
def test_theextremes_survive(values: list[float], limit: int) -> None:
    array = np.array(values)
    kept = array[select(array, limit)]
    assert kept.min() == array.min()
    assert kept.max() == array.max()


@given(
    st.lists(FINITE, min_size=100, max_size=300),
    st.dictionaries(
        st.integers(0, 99), st.sampled_from([np.nan, np.inf, -np.inf]), min_size=1, max_size=10
    ),
)
def test_values_that_are_not_finite_survive(values: list[float], odd: dict[int, float]) -> None:
    array = np.array(values)
    array[list(odd)] = list(odd.values())
    kept = select(array, 40)
    assert set(odd) <= set(kept.tolist())
    finite = array[np.isfinite(array)]
    assert np.nanmin(array[kept][np.isfinite(array[kept])]) == finite.min()
    assert np.nanmax(array[kept][np.isfinite(array[kept])]) == finite.max()


@given(
    st.lists(st.one_of(FINITE, st.sampled_from([0.0, -0.0, 1.0])), min_size=1, max_size=100),
    st.data(),
)
def test_each_bucket_keeps_its_first_smallest_and_its_last_largest(
    values: list[float], data: st.DataObject
) -> None:
    buckets = sorted(data.draw(st.lists(st.integers(0, 9), min_size=len(values), max_size=100)))
    buckets = buckets[: len(values)]
    expected = set()
    for bucket in set(buckets):
        of_bucket = [(value, at) for at, value in enumerate(values) if buckets[at] == bucket]
        lowest, highest = min(v for v, _ in of_bucket), max(v for v, _ in of_bucket)
        expected.add(min(at for v, at in of_bucket if v == lowest))
        expected.add(max(at for v, at in of_bucket if v == highest))
    kept = extremes(np.array(values), np.array(buckets, dtype=np.intp))
    assert set(kept.tolist()) == expected


def test_a_spike_in_each_bucket_is_kept() -> None:
    values = np.zeros(10_000)
    spikes = np.arange(500, 10_000, 1000)
    values[spikes] = 1 + np.arange(10)
    assert set(spikes) <= set(select(values, 22).tolist())


def test_a_curve_that_is_all_nan_is_thinned_evenly() -> None:
    kept = select(np.full(1000, np.nan), 50)
    assert len(kept) <= 50
    assert np.diff(kept).max() < 30


def test_too_small_a_limit_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        select(np.zeros(10), 3)
