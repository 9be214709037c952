"""What processes ask of the operating system, and the trainer's exit codes. Needs no torch."""

import ctypes
import os
import signal
import sys

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CANNOT_WRITE = 74  # EX_IOERR: not even its failure could be written down
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: stopped on request, can be resumed

# As ps and /proc/<pid>/comm show them:
TRAINER, SPARE, EXAMINER = "mlhf-trainer", "mlhf-spare", "mlhf-examiner"

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def die_with_parent(sig: int = signal.SIGKILL, expected_parent_pid: int | None = None) -> None:
    """Ask the kernel to send ``sig`` to this process when its parent ends (Linux only).

    A parent that ended before the request would never be noticed, so the parent's id is
    compared afterwards and the process ends itself if it is another one. The kernel watches
    the parent's thread that forked, so that thread must live as long as the parent does.
    """
    if not sys.platform.startswith("linux"):
        return
    prctl(_PR_SET_PDEATHSIG, int(sig))
    if expected_parent_pid is not None and os.getppid() != expected_parent_pid:
        os.kill(os.getpid(), sig)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (Linux only)."""
    if sys.platform.startswith("linux"):
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Name this process, at most 15 letters: a fork has the command line of its parent."""
    if sys.platform.startswith("linux"):
        prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def keep_freed_memory() -> None:
    """Let the C library keep memory that was freed, instead of giving it back each time.

    A training step frees and asks for the same large blocks over and over. By default glibc
    returns them to the system, and fresh ones have to be zeroed page by page: up to a
    quarter of a step. Does nothing with other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_TOP_PAD, 64 << 20)


def prctl(option: int, value: int | ctypes.c_char_p) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
