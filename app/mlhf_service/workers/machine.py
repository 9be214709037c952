"""What the machine, or the container, of a worker has: cores and memory."""

import os
from pathlib import Path

from mlhf_service.settings import Settings

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """The memory of the machine, or of the container where that has a limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *_container_limits()])


def memory_for_runs(settings: Settings) -> int:
    """What the runs on this machine may need together, by their estimates."""
    return settings.worker_memory_bytes or memory_bytes() * 9 // 10


def _container_limits() -> list[int]:
    found = []
    for path in _LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return found
