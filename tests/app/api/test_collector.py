"""What lives as long as the process is left out of collections; what comes later is not."""

import gc
import weakref

from mlhf_service.api.collector import set_aside


class _Ring:
    def __init__(self) -> None:
        self.itself = self


def test_what_is_alive_is_set_aside_and_garbage_is_not_kept() -> None:
    before, kept = gc.get_freeze_count(), [object() for _ in range(10)]
    dropped = weakref.ref(_Ring())
    try:
        set_aside()
        assert dropped() is None
        assert gc.get_freeze_count() > before
        assert not any(one is kept for one in gc.get_objects())
        later = weakref.ref(_Ring())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
