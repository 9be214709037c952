"""Whether this worker is shutting down: set in Celery's main process, read in its child."""

import mmap

# Anonymous shared memory: made before the pool forks, so that both sides see one byte.
_FLAG = mmap.mmap(-1, 1)


def request() -> None:
    _FLAG[0] = 1


def requested() -> bool:
    return bool(_FLAG[0])
