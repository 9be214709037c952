"""The environment of a run, for its record."""

import platform
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlhf.core.errors import SpecError
from mlhf.core.version import __version__


def choose_device(wanted: str) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA where there is any.

    Raises:
        SpecError: for ``cuda`` where there is none.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SpecError("/device", "The machine that trains has no CUDA device: use auto or cpu.")
    if wanted == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def describe(device: torch.device, model: nn.Module, seed: int, data_digest: str) -> dict[str, Any]:
    """Return the environment as JSON values."""
    return {
        "device": device.type,
        "device_name": _device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "engine": __version__,
        "threads": torch.get_num_threads(),
        "data_digest": data_digest,
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "platform": platform.platform(),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if sys.platform.startswith("linux"):
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
