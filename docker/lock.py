"""Write docker/locks: what each image installs, to the version and the hash of every file.

    python docker/lock.py            # needs uv on the path; asks the package index

One resolution for all images, for amd64 and arm64. The API's image has no torch, which the
service never imports. The CPU image takes torch from PyTorch's own index (see Dockerfile),
where its builds without CUDA are; its hash is therefore not in a lock, only its version.
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "docker" / "locks"

_CUDA = re.compile(r"(nvidia|cuda)-|triton$")
_TORCH = re.compile(r"torch$")
# What only torch, and the optimizers that are compared with, bring.
_TRAINING = re.compile(
    r"(pytorch-optimizer|schedulefree|sympy|mpmath|networkx|filelock|fsspec|setuptools)$"
)


def resolved(*arguments: str, given: str | None = None) -> str:
    """Run ``uv pip compile``; returns the lock without what names this machine."""
    command = ["uv", "pip", "compile", *arguments, "--universal", "--python-version=3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    ended = subprocess.run(
        command, cwd=ROOT, input=given, text=True, check=True, stdout=subprocess.PIPE
    )
    return ended.stdout


def blocks(lock: str) -> dict[str, str]:
    """A lock's entries by package; a package of several versions has them all."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        if entry.strip():
            name = re.split(r"[=\[ ]", entry, maxsplit=1)[0]
            found[name] = found.get(name, "") + entry
    return found


def main() -> None:
    LOCKS.mkdir(exist_ok=True)
    every = blocks(resolved("pyproject.toml", "--extra=service", "--extra=telemetry"))
    version = re.match(r"torch==([\w.]+)", every["torch"])
    assert version is not None
    kept = {
        "gpu": every,
        "cpu": {n: e for n, e in every.items() if not (_CUDA.match(n) or _TORCH.match(n))},
    }
    kept["api"] = {n: e for n, e in kept["cpu"].items() if not _TRAINING.match(n)}
    for name, entries in kept.items():
        head = f"# {name}: written by docker/lock.py\n"
        (LOCKS / f"{name}.txt").write_text(head + "".join(entries.values()))
    build = resolved("-", given="hatchling>=1.27\n")
    (LOCKS / "build.txt").write_text("# build: written by docker/lock.py\n" + build)
    (LOCKS / "torch.txt").write_text(f"torch=={version[1]}\n")


if __name__ == "__main__":
    main()
