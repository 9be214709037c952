"""A network given as a list of layers."""

from torch import nn

from mlhf.data.info import DataInfo
from mlhf.models.layer_specs import SequentialParams
from mlhf.models.layers import sequential
from mlhf.models.recipes import sequential_plan


def build(params: SequentialParams, info: DataInfo) -> nn.Module:
    """Return the network, with torch's default initialisation."""
    return sequential(sequential_plan(params, info))
