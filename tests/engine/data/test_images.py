"""Arrays of many images."""

import numpy as np

from mlhf.data.images import collect, half_size, map_in_threads


def test_threads_keep_the_order():
    stacks = list(map_in_threads(lambda n: np.full((2, 2), n, np.uint8), range(250)))
    assert collect(stacks, 250, (2, 2))[:, 0, 0].tolist() == list(range(250))
    assert max(map(len, stacks)) < 250


def test_half_size_rounds_the_mean():
    square = np.array([[0, 1], [1, 0]], np.uint8)
    assert half_size(square[None, None]).tolist() == [[[[1]]]]
    assert half_size(np.full((2, 3, 4, 6), 255, np.uint8)).min() == 255
