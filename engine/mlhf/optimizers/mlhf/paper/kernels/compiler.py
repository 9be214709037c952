"""Builds a C++ source once and keeps the library, where a compiler is at hand."""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno"),
    # GCC only schedules after it has given out registers, which costs a fifth here.
    *("-fschedule-insns", "-fsched-pressure"),
)
# By OpenMP the kernels run on torch's own threads. Others would have to share the processors
# with those, which after each of torch's operations go on spinning for milliseconds. Outside
# Linux torch's runtime is another one, which may end a process that loads a second.
_THREADED = ("-fopenmp",) if sys.platform.startswith("linux") else ()
_SECONDS = 120


class NoCompiler(RuntimeError):  # noqa: N818
    """The library cannot be built here; the message says why."""


def build(source: Path) -> ctypes.CDLL:
    """Return the library of a source, from the cache or freshly compiled.

    ``CXX`` names the compiler (default: the first of g++, clang++, c++ that is there);
    ``MLHF_CACHE_DIR`` the cache (default: ``~/.cache/mlhf``).

    Raises:
        NoCompiler: where there is none, it fails, or its product cannot be loaded.
    """
    compiler = _compiler()
    try:
        text = source.read_bytes()
        version = subprocess.run(
            [*compiler, "--version"], capture_output=True, timeout=_SECONDS, check=True
        ).stdout
        flags = repr((_FLAGS, _THREADED)).encode()
        key = hashlib.sha256(b"\0".join([text, version, flags, _processor()]))
        folder = _cache()
        target = folder / f"{source.stem}-{key.hexdigest()[:32]}.so"
        if not target.exists():
            _compile(compiler, source, target)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise NoCompiler(f"{' '.join(compiler)} failed: {str(detail)[-500:]}") from error


def _compiler() -> list[str]:
    if not (sys.platform.startswith("linux") or sys.platform == "darwin"):
        raise NoCompiler(f"no compiled kernel on {sys.platform}")
    wanted = os.environ.get("CXX")
    if wanted is not None:
        command = shlex.split(wanted)
        if not command or shutil.which(command[0]) is None:
            raise NoCompiler(f"CXX names no program: {wanted!r}")
        return command
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    raise NoCompiler("no C++ compiler (g++, clang++, c++) is installed")


def _compile(compiler: list[str], source: Path, target: Path) -> None:
    # Under another name first: two processes may build at once.
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        try:
            _call(compiler, [*_FLAGS, *_THREADED], source, temporary)
        except subprocess.CalledProcessError:  # clang often comes without OpenMP
            _call(compiler, _FLAGS, source, temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _call(compiler: list[str], flags: Sequence[str], source: Path, target: str) -> None:
    subprocess.run(
        [*compiler, *flags, str(source), "-o", target],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )


def _cache() -> Path:
    """A folder of this user's alone: what lies there is loaded into the process."""
    chosen = os.environ.get("MLHF_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(chosen) if chosen else Path(base) / "mlhf"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, 7):
            return folder
    except OSError:
        pass
    return _own_folder()


_own: "tempfile.TemporaryDirectory[str] | None" = None


def _own_folder() -> Path:
    """A temporary folder for this process: builds anew each time, but is safe."""
    global _own
    if _own is None:
        _own = tempfile.TemporaryDirectory(prefix="mlhf-kernels-")
    return Path(_own.name)


def _processor() -> bytes:
    """What -march=native depends on: a cache may be shared by machines."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line.encode()
    return f"{platform.machine()} {platform.processor()}".encode()
