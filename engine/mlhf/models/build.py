"""Building a model by its name and parameters."""

from typing import Any

import torch
from torch import nn

from mlhf.data.info import DataInfo
from mlhf.models.specs import MODELS


def build(name: str, params: dict[str, Any], info: DataInfo, seed: int) -> nn.Module:
    """Return a freshly initialised model on the CPU, in training mode.

    The same seed gives the same weights; torch's global random state is left as it was.

    Returns:
        A module from inputs (B, *info.input_shape) to (B, outputs), or (B, T, outputs) for text.

    Raises:
        SpecError: The parameters are wrong or do not fit the data.
    """
    parsed = MODELS.parse(name, params)
    module = MODELS[name].load()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed accelerators and not restore them.
        torch.default_generator.manual_seed(seed)
        return module(parsed, info)
