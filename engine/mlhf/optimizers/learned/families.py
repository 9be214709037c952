"""The families of meta-checkpoints: whose weights a file holds. Needs no torch.

MLHF's two variants have different networks, so each is a family of its own.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FORMAT = "mlhf-meta-1"  # what the metadata of a meta-checkpoint's file says

KRONECKER, PAPER, L2L = "mlhf", "mlhf_paper", "l2l"
FAMILIES = (KRONECKER, PAPER, L2L)
UNTRAINED = "none"  # what configurations say in place of a meta-checkpoint for fresh networks

_FOLDER = Path(__file__).parent / "checkpoints"
# The shipped file of each.
SHIPPED = {
    KRONECKER: _FOLDER / "default.safetensors",
    PAPER: _FOLDER / "paper.safetensors",
    L2L: _FOLDER / "l2l.safetensors",
}


def family_of(optimizer: str, params: Mapping[str, Any]) -> str:
    """Return the family of meta-checkpoints that an optimizer with such parameters takes."""
    is_paper = optimizer == KRONECKER and params.get("variant", "kronecker") == "paper"
    return PAPER if is_paper else optimizer


def family_in(optimizer: str, networks: Iterable[str]) -> str:
    """Return the family of a file that names an optimizer and has these networks.

    Files of the first version call the paper's variant by the name that is now the other's.
    """
    return PAPER if optimizer == KRONECKER and "preconditioner" in networks else optimizer
