"""What a trainer may not do: use the network, hold capabilities, take more memory than its limit.

A run needs none of it, so what a fault or a hostile file could do is bounded. Linux only, and as
far as the system lets a process confine itself; a report says what came of it. Needs no torch,
and must be called before there are threads: a user namespace is for whole processes.
"""

import ctypes
import fcntl
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlhf.core import process
from mlhf.core.bounded import limit_memory

Mode = Literal["auto", "required", "off"]

BASE_BYTES = 300 * 2**20  # Python and torch, which every limit allows for
_OOM_SCORE = 500  # the first to be ended when memory runs out, before worker and database

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR = 24, 38, 47, 4
_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_SYS_ADMIN = 1, 21
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same on all architectures
_LANDLOCK_TCP, _LANDLOCK_TCP_ABI = 0b11, 4  # bind and connect
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class ConfinementError(RuntimeError):
    """The system does not let a trainer be confined, where that is required."""


@dataclass
class Report:
    """What a trainer is confined to.

    Attributes:
        network: ``none`` (a namespace with nothing but a loopback device), ``no tcp``
            (Landlock: neither connections nor listening, on any device), or ``open``.
        capabilities: Those it has kept, by number.
        memory_limit_bytes: None where it has no limit of its own.
        memory_limit_by: ``cgroup`` (memory in use), or ``rlimit`` (memory asked for).
        refused: What the system did not allow, and why.
    """

    network: str = "open"
    capabilities: list[int] = field(default_factory=list)
    memory_limit_bytes: int | None = None
    memory_limit_by: str | None = None
    refused: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def confine(wanted: Mapping[str, Any], paths: Iterable[Path] = ()) -> Report:
    """Confine this process for good, as far as the system lets it.

    Args:
        wanted: ``mode``; ``memory_bytes``, a limit or None; ``cgroup``, a folder of cgroup v2
            that this process is to move into and that has the limit, or None.
        paths: What it must still reach.

    Raises:
        ConfinementError: Where the mode is ``required``, and network or capabilities remain.
    """
    report, mode, needed = Report(), wanted.get("mode", "auto"), _needed(paths)
    if not sys.platform.startswith("linux"):
        return report
    _try(report, "oom_score_adj", _volunteer)
    _try(report, "memory", lambda: _limit_memory(report, wanted))
    if mode == "off":
        report.capabilities = _held()
        return report
    _try(report, "network namespace", lambda: _leave_network(report))
    _try(report, "capabilities", lambda: _drop_capabilities(needed))
    report.capabilities = _held()
    if report.network == "open":
        _try(report, "landlock", lambda: _forbid_tcp(report))
    unwanted = set(report.capabilities) - needed
    if mode == "required" and (report.network == "open" or unwanted):
        raise ConfinementError("; ".join(report.refused) or "the system does not say why")
    return report


def _try(report: Report, what: str, act: Callable[[], None]) -> None:
    try:
        act()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        report.refused.append(f"{what}: {reason}")


def _volunteer() -> None:
    Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def _limit_memory(report: Report, wanted: Mapping[str, Any]) -> None:
    limit = wanted.get("memory_bytes")
    if wanted.get("cgroup") is not None:
        (Path(wanted["cgroup"]) / "cgroup.procs").write_text("0")  # this process
        report.memory_limit_by, report.memory_limit_bytes = "cgroup", limit
    elif limit is not None and wanted.get("rlimit", True):
        # It counts what is writable and private, in use or not. The base is for Python and
        # torch, which a fork of the spare has by now and another process will have.
        ceiling = max(_data_bytes(), BASE_BYTES) + max(0, limit - BASE_BYTES)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            ceiling = min(ceiling, hard)
        limit_memory(ceiling)
        report.memory_limit_by, report.memory_limit_bytes = "rlimit", limit


def _data_bytes() -> int:
    return 1024 * int(_status("VmData").split()[0])


def _leave_network(report: Report) -> None:
    """Enter a network namespace of our own, in which only loopback works."""
    if _CAP_SYS_ADMIN in _held():
        _check(_libc().unshare(_CLONE_NEWNET))
    else:
        uid, gid = os.geteuid(), os.getegid()
        _check(_libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET))
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            Path("/proc/self", name).write_text(text)
    report.network = "none"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _drop_capabilities(kept: set[int]) -> None:
    """Give up all capabilities but those, and the ways of having them back."""
    process.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    with suppress(OSError):  # no such thing before Linux 4.3
        process.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR)
    with suppress(OSError):  # beyond the last one, or none may be dropped: there are none to have
        for number in range(64):
            if number not in kept:
                process.prctl(_PR_CAPBSET_DROP, number)
    mask = sum(1 << number for number in kept & set(_held()))
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _check(_libc().capset(header, struct.pack("6I", low, low, 0, high, high, 0)))


def _held() -> list[int]:
    mask = int(_status("CapPrm"), 16)
    return [number for number in range(64) if mask >> number & 1]


def _needed(paths: Iterable[Path]) -> set[int]:
    """The capabilities without which root would not reach its files: those of other users."""
    if os.geteuid() != 0:
        return set()
    for path in paths:
        for part in (path, *path.parents):
            with suppress(FileNotFoundError):
                found = part.stat()
                bit = 0o100 if found.st_uid == 0 else 0o010 if found.st_gid == 0 else 0o001
                if not found.st_mode & bit and part.is_dir():
                    return {_CAP_DAC_OVERRIDE}
    return set()


def _forbid_tcp(report: Report) -> None:
    libc = _libc()
    if libc.syscall(_LANDLOCK_CREATE, None, 0, 1) < _LANDLOCK_TCP_ABI:
        raise ValueError("this kernel does not have it for networks")
    rules = struct.pack("QQ", 0, _LANDLOCK_TCP)
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0)
    _check(ruleset)
    try:
        _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)
    report.network = "no tcp"


def _status(name: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise ValueError(f"/proc/self/status has no {name}")


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
