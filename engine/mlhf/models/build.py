"""From a model's name and parameters to its module."""

from typing import Any

import torch
from torch import nn

from mlhf.core.config import Strict
from mlhf.data.info import DataInfo
from mlhf.models import cuda_convnet
from mlhf.models.layer_specs import SequentialParams
from mlhf.models.layers import sequential
from mlhf.models.params import CudaConvnetParams, MlpParams, ResnetParams
from mlhf.models.resnet import resnet
from mlhf.models.resnet_plan import resnet_plan
from mlhf.models.specs import (
    cuda_convnet_plan,
    mlp_plan,
    parse,
    sequential_plan,
)


def build(name: str, params: dict[str, Any], info: DataInfo, seed: int) -> nn.Module:
    """Return a freshly initialised model on the CPU, in training mode.

    The same seed gives the same weights; torch's global random state is left as it was.

    Returns:
        A module from inputs (B, *info.input_shape) to (B, outputs), or (B, T, outputs) for text.

    Raises:
        SpecError: The parameters are wrong or do not fit the data.
    """
    parsed = parse(name, params)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed accelerators and not restore them.
        torch.default_generator.manual_seed(seed)
        return _module(parsed, info)


def _module(params: Strict, info: DataInfo) -> nn.Module:
    match params:
        case MlpParams():
            return sequential(mlp_plan(params, info))
        case SequentialParams():
            return sequential(sequential_plan(params, info))
        case CudaConvnetParams():
            network = sequential(cuda_convnet_plan(params, info))
            cuda_convnet.initialise(network)
            return network
        case ResnetParams():
            return resnet(resnet_plan(params, info), info.input_shape[0], info.outputs)
        case _:
            raise TypeError(f"no module for {type(params).__name__}")
