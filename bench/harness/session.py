"""What the commands of this package share: how long a sitting lasts, and what it says."""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


def stopper(minutes: float | None) -> Callable[[], bool]:
    """Return what says whether to stop: after so many minutes, or on SIGINT or SIGTERM."""
    began, asked = time.monotonic(), threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())

    def stop() -> bool:
        late = minutes is not None and time.monotonic() - began > 60 * minutes
        return asked.is_set() or late

    return stop


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options that say on what, with what and how long to run."""
    parser.add_argument("--minutes", type=float, help="stop after so many; call again to go on")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=count, default=1, help="CPU threads (default 1)")
    default = Path(os.environ.get("MLHF_DATASETS_DIR", ".mlhf/datasets"))
    parser.add_argument("--data", type=Path, default=default,
                        help=f"holds one folder a data set (default {default})")  # fmt: skip
    parser.add_argument("--meta-checkpoint", default="default",
                        help="what mlhf learned: a path or none (default: as shipped)")  # fmt: skip


def count(text: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def say(line: str) -> None:
    """Write a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
