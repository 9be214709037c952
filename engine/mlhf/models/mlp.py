"""A multilayer perceptron."""

from torch import nn

from mlhf.data.info import DataInfo
from mlhf.models.layers import sequential
from mlhf.models.params import MlpParams
from mlhf.models.recipes import mlp_plan


def build(params: MlpParams, info: DataInfo) -> nn.Module:
    """Return the network, with torch's default initialisation."""
    return sequential(mlp_plan(params, info))
