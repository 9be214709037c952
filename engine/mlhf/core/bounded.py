"""Processes that look into what was sent, within bounds: how they are started, and enter them.

    subprocess.run(command("mlhf_service.datasets.examination", 2**30), env=environment(), …)

Their ``main`` begins with ``enter_bounds()``. Needs no torch.
"""

import argparse
import os
import resource
import sys

from mlhf.core.process import die_with_parent


def command(module: str, memory_bytes: int) -> list[str]:
    """Return the command that runs a module as a child of this process.

    Args:
        memory_bytes: What it may take.
    """
    bounds = ["--parent", str(os.getpid()), "--memory", str(memory_bytes)]
    return [sys.executable, "-m", module, *bounds]


def environment() -> dict[str, str]:
    """Return its environment: neither a database's address nor any other secret goes there."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("MLHF_")}
    path = os.pathsep.join(filter(None, sys.path))
    return {**ours, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def enter_bounds() -> None:
    """Keep to the bounds that ``command`` gave, and end with the parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(expected_parent_pid=options.parent)
    limit_memory(options.memory)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_memory(most: int) -> None:
    """Refuse this process more than so many bytes of memory that is private and writable."""
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    # Arrow's own allocator asks for a GiB that it will hardly use, at its first allocation.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
