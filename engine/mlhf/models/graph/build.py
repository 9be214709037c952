"""The registry's model ``graph``: from its parameters to a module, and to its sizes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from mlhf.core.errors import DataError, SpecError, under
from mlhf.data.info import DataInfo
from mlhf.models.graph.checks import examine
from mlhf.models.graph.module import GraphModule, output_names
from mlhf.models.graph.network import Network, load_weights, read_network
from mlhf.models.graph.sizes import GraphSizes, trained_output
from mlhf.models.graph.spec import GraphParams

_NORMAL = 0.02  # of parameters that belong to no layer


def sizes_of(params: GraphParams) -> GraphSizes:
    """Return the sizes of the graph that these parameters name.

    Raises:
        SpecError: it cannot be read or run.
    """
    graph = _network(params).graph
    with under("/params/graph" if params.graph is not None else "/params/network"):
        return examine(graph)


def build(params: GraphParams, info: DataInfo) -> nn.Module:
    """Return the network, with the weights that came with it or fresh ones."""
    network = _network(params)
    output = trained_output(output_names(network.graph.outputs) or [""], params.output, info)
    module = GraphModule(network.graph, output, columns=True)
    if network.weights:
        try:
            load_weights(module, network.weights)
        except DataError as error:
            raise SpecError("/params/network", str(error)) from None
    elif params.initial == "given":
        raise SpecError("/params/initial", "no weights came with the graph; take fresh ones")
    if params.initial == "fresh" or not network.weights:
        reset_parameters(module)
    return module


def reset_parameters(module: GraphModule) -> None:
    """Draw fresh parameters: layers as torch.nn does; others normal, those of one axis 0 or 1.

    What is called ``bias`` or ends so starts at 0, other parameters of one axis at 1.
    """
    with torch.no_grad():
        for layer in module.modules():
            reset = getattr(layer, "reset_parameters", None) or getattr(
                layer, "_reset_parameters", None
            )
            if callable(reset):
                reset()
        for name in module.definition.parameters:
            _reset(name, module.tensor(name))


def _reset(name: str, parameter: Tensor) -> None:
    if not parameter.is_floating_point():
        return
    if parameter.ndim > 1:
        nn.init.trunc_normal_(parameter, std=_NORMAL)
    else:
        parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def _network(params: GraphParams) -> Network:
    if params.graph is not None:
        return Network(params.graph, {})
    assert params.network is not None
    try:
        return read_network(Path(params.network))
    except DataError as error:
        raise SpecError("/params/network", str(error)) from None
