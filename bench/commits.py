"""Writes a second on SQLite, the disk waited for after the commit (as is) and within it.

    python -m bench.commits [--seconds 3] [--folder FOLDER]

Each write is a row of 500 characters in a transaction of its own, and is counted once it is on the
disk. Writers are threads of one or more processes. What is won depends on what the disk takes for
a flush, which is measured first.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import event, text

from bench.load.processes import together
from mlhf_service.database import Database

_INSERT = text("insert into lines (line) values (:line)")
WRITERS = ((1, 1), (1, 16), (2, 16), (8, 1))  # processes, threads of each


def flush_seconds(folder: Path, times: int = 200) -> float:
    """Half of the flushes of 16 KB take at most so long."""
    found = []
    file = os.open(folder / "flushed", os.O_RDWR | os.O_CREAT)
    for _ in range(times):
        os.pwrite(file, os.urandom(16384), 0)
        began = time.perf_counter()
        os.fdatasync(file)
        found.append(time.perf_counter() - began)
    os.close(file)
    return statistics.median(found)


def opened(url: str, within: bool) -> Database:
    """The database; with ``within`` SQLite waits for the disk itself, with its lock held."""
    database = Database(url)
    if within:

        @event.listens_for(database.engine, "connect")
        def _full(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous=FULL")

        database.sync = lambda: None  # type: ignore[method-assign]
    return database


def work(url: str, within: bool, threads: int, seconds: float, start: Any, results: Any) -> None:
    database, counts, longest = opened(url, within), [0] * threads, [0.0] * threads
    start.wait()
    until = time.perf_counter() + seconds

    def one(place: int) -> None:
        while (began := time.perf_counter()) < until:
            with database.write() as session:
                session.execute(_INSERT, {"line": "x" * 500})
            counts[place] += 1
            longest[place] = max(longest[place], time.perf_counter() - began)

    running = [threading.Thread(target=one, args=(place,)) for place in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    results.put((sum(counts), max(longest)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, help="on the disk in question")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(f"a flush: {1e3 * flush_seconds(Path(folder)):.1f} ms; {os.cpu_count()} cores")
    for processes, threads in WRITERS:
        for within in (True, False):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                url = f"sqlite:///{folder}/commits.sqlite3"
                with opened(url, within).write() as session:
                    session.execute(text("create table lines (id integer primary key, line text)"))
                arguments = (url, within, threads, options.seconds)
                found = together(work, arguments, processes)
                print(
                    f"{processes} x {threads:2} writers, disk {'within' if within else 'after '} "
                    f"the commit: {sum(n for n, _ in found) / options.seconds:6.0f}/s, "
                    f"the longest {1e3 * max(longest for _, longest in found):5.0f} ms"
                )


if __name__ == "__main__":
    main()
