"""Blocks that were decoded are found again, and make room for others."""

from threading import Thread

import numpy as np
import pytest

from mlhf_service.runs.blocks import Block
from mlhf_service.runs.decoded import Decoded


def block(rows: int) -> Block:
    """A block of one metric: eight bytes a value, six columns, and a byte a flag."""
    step = np.arange(rows, dtype=np.int64)
    place = step.astype(np.float64)
    flags = {"train_loss": np.ones(rows, dtype=np.bool_)}
    return Block(step, step, place, place, place, {"train_loss": place}, flags)


def test_a_block_is_found_by_all_that_it_depends_on() -> None:
    kept, one = Decoded(10**6), block(10)
    kept.put("digest", True, ["train_loss"], one)
    assert kept.get("digest", True, ["train_loss"]) is one
    assert kept.get("digest", False, ["train_loss"]) is None
    assert kept.get("digest", True, ["train_loss", "test_loss"]) is None
    assert kept.get("another", True, ["train_loss"]) is None


def test_nobody_writes_into_a_block_that_others_read() -> None:
    kept = Decoded(10**6)
    kept.put("digest", True, [], one := block(10))
    for column in (one.step, one.values["train_loss"], one.present["train_loss"]):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


def test_what_was_not_asked_for_longest_goes_first() -> None:
    size = block(10).nbytes
    assert size == 10 * (6 * 8 + 1)
    kept = Decoded(2 * size)
    for digest in ("a", "b"):
        kept.put(digest, True, [], block(10))
    kept.get("a", True, [])
    kept.put("c", True, [], block(10))
    assert [kept.get(digest, True, []) is not None for digest in "abc"] == [True, False, True]


def test_a_block_that_would_not_fit_moves_nothing() -> None:
    kept = Decoded(block(10).nbytes)
    kept.put("small", True, [], block(10))
    kept.put("large", True, [], block(11))
    assert kept.get("small", True, []) is not None
    assert kept.get("large", True, []) is None


def test_threads_may_use_it_at_once() -> None:
    size = block(10).nbytes
    kept = Decoded(3 * size)

    def use(own: int) -> None:
        for number in range(300):
            kept.put(str((number + own) % 7), True, [], block(10))
            kept.get(str(number % 7), True, [])

    threads = [Thread(target=use, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(kept.get(str(number), True, []) is not None for number in range(7)) == 3
