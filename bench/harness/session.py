"""What the commands share: when a session stops, its options, its output."""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


def stopper(minutes: float | None) -> Callable[[], bool]:
    """Return a function that is true after so many minutes, or after SIGINT or SIGTERM."""
    began, asked = time.monotonic(), threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())

    def stop() -> bool:
        late = minutes is not None and time.monotonic() - began > 60 * minutes
        return asked.is_set() or late

    return stop


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for time, device, data and meta-checkpoint."""
    parser.add_argument("--minutes", type=float, help="stop after so many; run again to resume")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=positive_int, default=1, help="CPU threads (default 1)")
    default = Path(os.environ.get("MLHF_DATASETS_DIR", ".mlhf/datasets"))
    parser.add_argument(
        "--data",
        type=Path,
        default=default,
        help=f"holds one folder for each data set (default {default})",
    )
    parser.add_argument(
        "--meta-checkpoint",
        default="default",
        help="of mlhf: a path, or none (default: as shipped)",
    )


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def log(line: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
