"""A batch is small against the median of the last ones."""

import pytest

from mlhf.optimizers.mlhf.kronecker.batch_sizes import BatchSizes


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([16, 8], 0.5),
        ([16, 16, 32], 1),
        ([64, 20, 64, 20, 64, 20], 20 / 64),  # epochs of two batches
        ([1000, 50, 50], 1),  # a large first one
        ([64] * 20 + [16] * 5, 0.25),
        ([64] * 20 + [16] * 6, 1),  # the size was changed
    ],
)
def test_a_batchs_fraction_is_of_the_usual_size(sizes: list[float], expected: float) -> None:
    seen = BatchSizes()
    found = [seen.fraction(size) for size in sizes]
    assert found[0] == 1
    assert found[-1] == expected


def test_the_state_goes_on_where_it_was() -> None:
    seen, again = BatchSizes(), BatchSizes()
    for size in (64, 64, 64):
        seen.fraction(size)
    again.load_state_dict(seen.state_dict())
    assert again.fraction(16) == seen.fraction(16) == 0.25
