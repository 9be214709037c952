"""Worker processes that start together."""

import multiprocessing
from collections.abc import Callable
from typing import Any


def together(work: Callable[..., None], arguments: tuple[Any, ...], workers: int) -> list[Any]:
    """Run ``work(*arguments, start, results)`` in so many processes; returns what each put.

    Each waits at the barrier ``start``, and puts one value into the queue ``results``.
    """
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=work, args=(*arguments, start, results)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return found
