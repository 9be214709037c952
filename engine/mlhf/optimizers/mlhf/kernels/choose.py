"""Which form of MLHF's network runs: C++ on a CPU, Triton on a GPU, else plain torch."""

import functools
import importlib.util
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.kernels import library
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights

Path = Literal["cpp", "triton", "torch"]
Wanted = Literal["auto", "cpp", "triton", "torch"]


@dataclass(frozen=True)
class Choice:
    """The form that runs, and why it is not a faster one (empty where it is the fastest)."""

    path: Path
    reason: str = ""


def choose(weights: NetworkWeights, like: Tensor, wanted: Wanted = "auto") -> Choice:
    """Return the form for vectors like the given one.

    Raises:
        RuntimeError: where a certain form is wanted and cannot run; ``auto`` never fails.
    """
    if wanted == "torch":
        return Choice("torch", "torch was asked for")
    fast: Path = "triton" if like.device.type == "cuda" else "cpp"
    if wanted in ("auto", fast):
        reason = _obstacle(weights, like, fast)
    else:
        reason = f"{fast} is for {like.device.type}"
    if not reason:
        return Choice(fast)
    if wanted != "auto":
        raise RuntimeError(f"the {wanted} kernel cannot run here: {reason}")
    return Choice("torch", reason)


def _obstacle(weights: NetworkWeights, like: Tensor, fast: Path) -> str:
    if (weights.inputs, weights.hidden) != (3, 4):
        return "the kernels are for 3 inputs and 4 units"
    if like.dtype != torch.float32:
        return f"the kernels are for float32, not {like.dtype}"
    if like.device.type not in ("cpu", "cuda"):
        return f"there is no kernel for {like.device.type}"
    return library.obstacle() if fast == "cpp" else _no_triton()


@functools.cache
def _no_triton() -> str:
    return "" if importlib.util.find_spec("triton") else "triton is not installed"
