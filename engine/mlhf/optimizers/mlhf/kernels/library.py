"""Loads the C++ operators: those built ahead, or compiled here once and kept.

Not by ``torch.utils.cpp_extension.load``: that needs ninja, imports setuptools, and its lock
outlives a process that is killed while it builds, after which every other waits for ever.
"""

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from mlhf.optimizers.mlhf.kernels import build
from mlhf.optimizers.mlhf.kernels.build import NoCompiler

_log = logging.getLogger(__name__)
_ENVIRONMENT = Path(sys.prefix) / "share" / "mlhf"
BUILT_AHEAD = Path(__file__).with_name(build.AHEAD)


@functools.cache
def obstacle() -> str:
    """Load the operators, once; return why there are none, or an empty text."""
    try:
        torch.ops.load_library(str(find()))  # type: ignore[no-untyped-call]
    except (NoCompiler, OSError) as error:
        # A machine without a compiler is nothing to warn of; one whose compiler fails is.
        level = logging.INFO if type(error) is NoCompiler else logging.WARNING
        _log.log(level, "MLHF runs in plain torch, without C++ operators: %s", error)
        return str(error)
    return ""


def is_built() -> bool:
    """Whether the library is there already, in the wheel or the cache."""
    try:
        return _ahead() is not None or _in_cache(_instructions())[0].exists()
    except NoCompiler:
        return False


def find() -> Path:
    """Return the library for this processor: from wheel, environment or cache, or compiled now.

    ``MLHF_CACHE_DIR`` names the cache (default: ``~/.cache/mlhf``), ``CXX`` the compiler.

    Raises:
        NoCompiler: where it is in neither and cannot be compiled.
    """
    return _ahead() or compiled(_instructions())


def _instructions() -> str:
    found: str = torch.backends.cpu.get_cpu_capability()
    return found if found in build.instruction_sets() else "DEFAULT"


def _ahead() -> Path | None:
    ahead = BUILT_AHEAD / build.file_name(_instructions())
    return ahead if ahead.is_file() else None


def compiled(instructions: str) -> Path:
    """Return the library from the cache, into which it is compiled if need be.

    Raises:
        NoCompiler: where there is no compiler or it fails.
    """
    target, command = _in_cache(instructions)
    return target if target.exists() else _made(target, command)


def _made(target: Path, command: list[str]) -> Path:
    """Return the target, which is compiled unless somebody else has done it meanwhile."""
    try:
        with _locked(target.with_suffix(".lock")):
            if not target.exists():
                _compile(command, target)
    except OSError as error:
        raise NoCompiler(f"nothing can be kept in {target.parent}: {error}") from error
    return target


def _in_cache(instructions: str) -> tuple[Path, list[str]]:
    """Return the library's place, and the command that makes it, but for ``-o``.

    It is in the environment where it was compiled into that, and in the cache otherwise.

    Raises:
        NoCompiler: where there is none.
    """
    compiler = build.find_compiler()
    command = build.command(compiler, instructions)
    version = build.run([*compiler, "--version"])
    settings = repr((version, build.flags(instructions), torch.__version__)).encode()
    sources = (source.read_bytes() for source in build.SOURCES)
    key = hashlib.sha256(b"\0".join([settings, *sources]))
    name = f"kernels-{key.hexdigest()[:32]}.so"
    in_environment = _ENVIRONMENT / name
    return in_environment if in_environment.exists() else _cache() / name, command


def _compile(command: list[str], target: Path) -> None:
    # Under another name first: who finds the library finds all of it.
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        build.run([*command, "-o", temporary])
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process compiles, others wait; the lock ends with its holder, however that ends."""
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks: then each compiles
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


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
    return Path(_temporary().name)


@functools.cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    """A folder for this process: builds anew each time, but is safe."""
    return tempfile.TemporaryDirectory(prefix="mlhf-kernels-")


def install() -> Path:
    """Return the library, which is compiled into the environment unless it is there.

    Raises:
        NoCompiler: where it cannot be compiled.
        OSError: where nothing can be written there.
    """
    found = _ahead()
    if found is None:
        cached, command = _in_cache(_instructions())
        found = _ENVIRONMENT / cached.name
        if not found.exists():
            _ENVIRONMENT.mkdir(parents=True, exist_ok=True)
            _made(found, command)
    return found
