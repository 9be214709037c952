"""The MLHF paper's convolutional network."""

from torch import nn

from mlhf.data.info import DataInfo
from mlhf.models.layers import sequential
from mlhf.models.params import CudaConvnetParams
from mlhf.models.recipes import cuda_convnet_plan

_CONV_STD, _DENSE_STD, _HIDDEN_BIAS = 0.05, 0.04, 0.1


def build(params: CudaConvnetParams, info: DataInfo) -> nn.Module:
    """Return the network, initialised as in the paper."""
    network = sequential(cuda_convnet_plan(params, info))
    initialise(network)
    return network


def initialise(network: nn.Module) -> None:
    """Draw weights N(0, 0.05) for convolutions, N(0, 0.04) for dense layers, and for the last
    layer N(0, 1/fan_in) (1/192 at width 1). Biases are 0, in the hidden dense layers 0.1.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            std, bias = _CONV_STD, 0.0
        elif layer is layers[-1]:
            std, bias = 1 / layer.in_features, 0.0
        else:
            std, bias = _DENSE_STD, _HIDDEN_BIAS
        nn.init.normal_(layer.weight, std=std)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, bias)
