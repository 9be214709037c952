"""The garbage collector rests while modules are imported, and leaves them out afterwards."""

import gc
from collections.abc import Iterator

import pytest

from mlhf.core.imports import importing


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_the_collector_rests_and_what_was_made_is_left_out() -> None:
    gc.unfreeze()
    with importing():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    with pytest.raises(ImportError, match="no_such_module"), importing():
        __import__("no_such_module")
    assert gc.isenabled()
