"""Whether this machine can train: ``python -m mlhf.selfcheck cpu|cuda``.

Imports torch, and has the device compute. Prints a JSON object: what the device is, or the
``error``, in a sentence; the exit code is 0 or 1.
"""

import json
import sys
from typing import Any

from mlhf.core import process
from mlhf.core.failures import explain
from mlhf.core.imports import importing


def examine(name: str) -> dict[str, Any]:
    """Have the device multiply two matrices; returns what it is.

    Raises RuntimeError where the product is wrong, and what torch raises.
    """
    with importing():
        import torch

    device = torch.device(name)
    ones = torch.ones(64, 64, device=device)
    if float((ones @ ones).sum()) != 64.0**3:
        raise RuntimeError(f"the device {name} computes wrongly.")
    if device.type != "cuda":
        return {"type": device.type}
    found = torch.cuda.get_device_properties(device)
    return {"type": "cuda", "name": found.name, "memory_bytes": found.total_memory}


def main(arguments: list[str]) -> int:
    """Print what was found; returns the process's exit code."""
    process.die_with_parent()
    try:
        answer = examine(*arguments)
    except Exception as error:
        failure = explain(error)
        unknown = f"The device {arguments[0]} does not answer: {error}"
        answer = {"error": unknown if failure.type == "internal" else failure.detail}
    sys.stdout.write(json.dumps(answer))
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
