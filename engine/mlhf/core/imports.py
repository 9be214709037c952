"""Faster imports, and forks that share what was imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import modules in this block without the garbage collector, for a process of our own.

    What imports make lives as long as the process, and looking through it again and again takes a
    fifth of their time. Afterwards it is left out of all collections, which would also copy every
    page of it in a fork.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
