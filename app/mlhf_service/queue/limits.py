"""The limits of a trainer: its memory, and what it may not do.

The memory limit comes from the run's estimate, with room for estimates that are wrong. Where the
worker may make groups of cgroup v2 it is the kernel that counts what is in use, and ends what
exceeds it; elsewhere the trainer's own rlimit refuses it the memory, which the trainer can tell.
"""

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlhf_service.queue.leases import Claim
from mlhf_service.settings import Settings
from mlhf_service.workers.machine import memory_for_runs

log = logging.getLogger(__name__)

_FACTOR, _SLACK_BYTES = 2, 2**30
_CGROUP_ROOT = Path("/sys/fs/cgroup")
# What ends a process whose memory is refused where nobody can tell it in Python.
_SIGNS = (b"bad_alloc", b"memory allocation of", b"allocate memory", b"Thread creation failed")
_TAIL_BYTES = 4096


class TrainerLimits:
    """What one trainer is confined to. Use ``remove`` when it has ended."""

    def __init__(self, settings: Settings, claim: Claim) -> None:
        self.memory_bytes = memory_limit(settings, claim.memory_bytes)
        self._mode = settings.trainer_confinement
        # CUDA maps far more memory than it uses, all of which an rlimit would count.
        self._rlimit = claim.queue != "gpu"
        self._group: Path | None = None
        parent = group_parent(settings)
        if parent is not None:
            self._group = make_group(
                parent, f"trainer-{claim.run_id}-{claim.attempt}", self.memory_bytes
            )

    def wanted(self) -> dict[str, Any]:
        """What the trainer is told to do to itself (``mlhf.core.confinement``)."""
        return {
            "mode": self._mode,
            "memory_bytes": self.memory_bytes,
            "rlimit": self._rlimit,
            "cgroup": None if self._group is None else str(self._group),
        }

    def ran_out(self, exit_code: int | None, log_path: Path) -> bool:
        """Whether a trainer that told no reason ended because of its memory limit."""
        if self._group is not None and exit_code == -signal.SIGKILL:
            with suppress(OSError):
                events = (self._group / "memory.events").read_text().split()
                return int(dict(zip(events[::2], events[1::2], strict=True))["oom_kill"]) > 0
        if exit_code in (None, 0, -signal.SIGKILL) or not self._rlimit:
            return False
        with suppress(OSError), log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - _TAIL_BYTES))
            tail = file.read()
            return any(sign in tail for sign in _SIGNS)
        return False

    def error(self) -> dict[str, str]:
        """What to tell of a run that was ended because of its memory limit."""
        return {
            "type": "memory",
            "title": "Not enough memory",
            "detail": f"The run needs more memory than its limit of "
            f"{self.memory_bytes / 2**30:.1f} GiB, which comes from its estimate. A smaller "
            "network or batch_size may fit.",
        }

    def remove(self) -> None:
        """Forget its group."""
        if self._group is not None:
            with suppress(OSError):
                self._group.rmdir()


def memory_limit(settings: Settings, estimate: int) -> int:
    """The bytes that a trainer may take, given what it is estimated to need (0: not known)."""
    most = memory_for_runs(settings)
    return min(most, _FACTOR * estimate + _SLACK_BYTES) if estimate else most


def over_time(settings: Settings) -> dict[str, str]:
    """What to tell of a run that was ended because it took too long."""
    return {
        "type": "wall-time",
        "title": "The run took too long",
        "detail": f"It has held a worker for {settings.max_wall_seconds:,.0f} seconds, as long as "
        "is allowed here (MLHF_MAX_WALL_SECONDS). Its curve up to there is kept. Give it a "
        "smaller budget or network.",
    }


def group_parent(settings: Settings) -> Path | None:
    """The group of cgroup v2 in which groups for trainers can be made, if any."""
    parent = settings.trainer_cgroup
    if parent is None:
        own = _own_group()
        if own is None or own == _CGROUP_ROOT or own.parent == _CGROUP_ROOT:
            return None
        parent = own.parent
    try:
        if "memory" not in (parent / "cgroup.controllers").read_text().split():
            return None
        if "memory" not in (parent / "cgroup.subtree_control").read_text().split():
            # Only a group without processes of its own may give a controller to those in it.
            (parent / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        return None
    return parent if os.access(parent, os.W_OK) else None


def make_group(parent: Path, name: str, memory_bytes: int) -> Path | None:
    """Make a group with a memory limit; None where the system refuses it."""
    group = parent / name
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text(str(memory_bytes))
        with suppress(OSError):  # no swap is no loss
            (group / "memory.swap.max").write_text("0")
        (group / "memory.oom.group").write_text("1")
    except OSError as error:
        log.warning("no group for a trainer: %s", error)
        with suppress(OSError):
            group.rmdir()
        return None
    return group


def _own_group() -> Path | None:
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return _CGROUP_ROOT / line.removeprefix("0::/")
    return None
