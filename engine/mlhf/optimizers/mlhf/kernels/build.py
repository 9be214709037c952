"""How the C++ operators are compiled: by the wheel's build hook, and at first use.

Of one source three libraries can be made, for the instruction sets that torch tells apart.
Uses the standard library alone: the build hook runs this file without the package.
"""

import platform
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from os import environ
from pathlib import Path

SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in (
        *("kernels.cpp", "chunks.h", "coordinate.h", "kronecker_operators.h"),
        *("kronecker.h", "product.h", "vectors.h", "lanes.h"),
    )
)
AHEAD = "built"  # the folder beside this file where the wheel has the libraries
# The oldest torch whose stable ABI the library asks for.
_TORCH = "0x020b000000000000"
_FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-math-errno"),
    # GCC only schedules after it has given out registers, which costs a fifth here.
    *("-fschedule-insns", "-fsched-pressure"),
    f"-DTORCH_TARGET_VERSION={_TORCH}",
)
# As torch compiles its own kernels, but for the tuning: without it the networks take 2 % longer.
_X86 = {
    "DEFAULT": (),
    "AVX2": ("-mavx2", "-mfma", "-mf16c", "-mtune=haswell"),
    "AVX512": (
        *("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"),
        "-mtune=skylake-avx512",
    ),
}
_SECONDS = 120


class NoCompiler(RuntimeError):  # noqa: N818
    """The library cannot be built here; the message says why."""


class CompilerFailed(NoCompiler):
    """There is a compiler, but it did not build the library."""


def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Return the flags of each instruction set there is on this kind of processor."""
    return _X86 if platform.machine().lower() in ("x86_64", "amd64") else {"DEFAULT": ()}


def file_name(instructions: str) -> str:
    """Return a library's name in the wheel."""
    return f"kernels-{instructions.lower()}.so"


def find_compiler() -> list[str]:
    """Return the compiler's command: ``CXX``, or the first of g++, clang++, c++ that is there.

    Raises:
        NoCompiler: where there is none.
    """
    if not (sys.platform.startswith("linux") or sys.platform == "darwin"):
        raise NoCompiler(f"no compiled kernel on {sys.platform}")
    wanted = environ.get("CXX")
    if wanted is not None:
        command = shlex.split(wanted)
        if not command or shutil.which(command[0]) is None:
            raise NoCompiler(f"CXX names no program: {wanted!r}")
        return command
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    raise NoCompiler("no C++ compiler (g++, clang++, c++) is installed")


def flags(instructions: str) -> list[str]:
    """Return the flags that decide what the library is."""
    return [*_FLAGS, *instruction_sets()[instructions]]


def command(compiler: list[str], instructions: str) -> list[str]:
    """Return the command that builds the library, but for ``-o`` and the target.

    Raises:
        NoCompiler: where torch or its headers are not installed.
    """
    found = find_spec("torch")
    folder = Path(found.origin).parent if found is not None and found.origin else None
    if folder is None or not (folder / "include/torch/csrc/stable/library.h").is_file():
        raise NoCompiler("torch's C++ headers are not installed")
    return [
        *compiler,
        *flags(instructions),
        *("-isystem", str(folder / "include")),
        str(SOURCES[0]),
        *("-L", str(folder / "lib"), "-ltorch_cpu"),
    ]


def run(command: list[str]) -> bytes:
    """Return a command's output.

    Raises:
        CompilerFailed: where it fails; the message has the end of what it printed.
    """
    try:
        return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        printed = getattr(error, "stderr", None) or str(error).encode()
        detail = printed.decode(errors="replace")[-500:]
        raise CompilerFailed(f"{command[0]} failed: {detail}") from error
