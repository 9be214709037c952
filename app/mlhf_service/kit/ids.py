"""Opaque, prefixed ids that sort by creation time: ULIDs in lower case."""

import threading
import time

from ulid import ULIDGenerator

_GENERATOR = ULIDGenerator()
_LOCK = threading.Lock()
_latest = 0


def new_id(prefix: str) -> str:
    """Return a fresh id such as ``job_01k...``, larger than any made before in this process."""
    global _latest
    with _LOCK:
        _latest = max(_latest, time.time_ns() // 1_000_000)  # a clock may be set back
        return f"{prefix}_{_GENERATOR.generate(_latest)}".lower()
