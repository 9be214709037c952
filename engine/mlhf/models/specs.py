"""The registry of models. Imports no torch, allocates nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from mlhf.core.errors import SpecError
from mlhf.core.registry import Registry, Spec
from mlhf.data.info import DataInfo
from mlhf.models.graph.sizes import GraphSizes, check_fit, trained_output
from mlhf.models.graph.spec import GraphParams
from mlhf.models.layer_specs import SequentialParams
from mlhf.models.params import CudaConvnetParams, MlpParams, ResnetParams
from mlhf.models.recipes import cuda_convnet_plan, mlp_plan, sequential_plan
from mlhf.models.resnet_plan import resnet_plan, resnet_sizes
from mlhf.models.shapes import Planned, fewest, output_sizes

if TYPE_CHECKING:
    from torch import nn

# From parsed parameters and the data's shapes to an initialised module.
Build = Callable[[Any, DataInfo], "nn.Module"]


@dataclass(frozen=True)
class ModelSummary:
    """Sizes of a model on given data.

    Attributes:
        parameters: Number of trainable values.
        activations: Floats per sample kept for the backward pass, an estimate.
        depth: Layers with weights on the longest way through.
        output_shape: Shape of the output for one sample.
        normalized_over: How few values of one sample a layer of batch norm takes a channel's
            mean over; None without such a layer.
        matrices: Rows and columns of its weight matrices.
        constants: Floats that are computed or kept whatever the batch.
    """

    parameters: int
    activations: int
    depth: int
    output_shape: tuple[int, ...]
    normalized_over: int | None
    matrices: tuple[tuple[int, int], ...]
    constants: int = 0


@dataclass(frozen=True)
class ModelSpec(Spec[Build]):
    """One family of models.

    Attributes:
        summarize: From parsed parameters and the data's shapes to the model's sizes; raises
            SpecError for data that it cannot take.
    """

    summarize: Callable[[Any, DataInfo], ModelSummary]


def _summary_of(
    planner: Callable[[Any, DataInfo], tuple[Planned, ...]],
) -> Callable[[Any, DataInfo], ModelSummary]:
    def summarize(params: Any, data: DataInfo) -> ModelSummary:
        planned = planner(params, data)
        return ModelSummary(
            parameters=sum(p.parameters for p in planned),
            activations=prod(data.input_shape) + sum(p.activations for p in planned),
            depth=sum(p.depth for p in planned),
            output_shape=planned[-1].result.sizes,
            normalized_over=fewest(p.normalized_over for p in planned),
            matrices=tuple(matrix for p in planned for matrix in p.matrices),
        )

    return summarize


def _summarize_resnet(params: ResnetParams, data: DataInfo) -> ModelSummary:
    plan = resnet_plan(params, data)
    if output_sizes(data) != (data.outputs,):
        raise SpecError(
            "/name",
            f"resnet gives one vector a sample; the data needs outputs of shape "
            f"{output_sizes(data)}: take sequential or a network of your own",
        )
    parameters, activations, depth, pixels = resnet_sizes(plan, data)
    activations += prod(data.input_shape)
    matrices = (
        (result, source * kernel**2)
        for block in plan.blocks
        for source, result, kernel, _ in block.convolutions()
    )
    return ModelSummary(parameters, activations, depth, output_sizes(data), pixels, tuple(matrices))


def graph_summary(sizes: GraphSizes, output: str | None, data: DataInfo) -> ModelSummary:
    """Return the sizes of a graph on these data.

    Args:
        sizes: As ``mlhf.models.graph.checks.examine`` found them.
        output: The name of the output that is trained, where it has several.

    Raises:
        SpecError: they do not fit.
    """
    check_fit(sizes, output, data)
    trained = trained_output(sizes.outputs, output, data)
    single = not isinstance(trained, tuple) and data.task != "detection"
    shape = sizes.outputs[str(trained or "")].shape if single else [data.outputs]
    return ModelSummary(
        parameters=sizes.parameters,
        activations=prod(data.input_shape) + sizes.activations,
        depth=sizes.depth,
        output_shape=tuple(shape),
        normalized_over=sizes.normalized_over,
        matrices=tuple(sizes.matrices),
        constants=sizes.constants + sizes.frozen,
    )


def _summarize_graph(params: GraphParams, data: DataInfo) -> ModelSummary:
    sizes = resolve_name("mlhf.models.graph.build:sizes_of")  # needs torch
    return graph_summary(sizes(params), params.output, data)


MODELS = Registry(
    "model",
    (
        ModelSpec(
            "mlp",
            "A multilayer perceptron for images (flattened) and tables.",
            MlpParams,
            "mlhf.models.mlp:build",
            _summary_of(mlp_plan),
        ),
        ModelSpec(
            "cuda_convnet",
            "The convolutional network of the MLHF paper: two 5x5 convolutions, three dense.",
            CudaConvnetParams,
            "mlhf.models.cuda_convnet:build",
            _summary_of(cuda_convnet_plan),
        ),
        ModelSpec(
            "resnet",
            "A pre-activation residual network (v2) for images.",
            ResnetParams,
            "mlhf.models.resnet:build",
            _summarize_resnet,
        ),
        ModelSpec(
            "sequential",
            "A network of your own: a list of layers, residual blocks included.",
            SequentialParams,
            "mlhf.models.sequential:build",
            _summary_of(sequential_plan),
        ),
        ModelSpec(
            "graph",
            "A network of your own: a graph of operations, as mlhf.trace makes it of a module.",
            GraphParams,
            "mlhf.models.graph.build:build",
            _summarize_graph,
        ),
    ),
)


def summarize(name: str, params: dict[str, Any], data: DataInfo) -> ModelSummary:
    """Return the sizes of a model on these data.

    Raises:
        SpecError: The parameters are wrong or do not fit the data.
    """
    parsed = MODELS.parse(name, params)
    check_task(name, data)
    return MODELS[name].summarize(parsed, data)


def check_task(name: str, data: DataInfo) -> None:
    """Refuse models that have no outputs for boxes. Raises SpecError."""
    if data.task == "detection" and name != "graph":
        raise SpecError(
            "/name",
            f"{name} does not find boxes: a detector is a network of your own, of the model graph "
            "(docs/losses.md)",
        )
