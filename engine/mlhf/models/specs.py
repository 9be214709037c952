"""The registry of models. Imports no torch, allocates nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from mlhf.core.config import Strict
from mlhf.core.params import lookup, parse_params
from mlhf.data.info import DataInfo
from mlhf.models import recipes
from mlhf.models.layer_specs import Layer, SequentialParams
from mlhf.models.params import CudaConvnetParams, MlpParams, ResnetParams
from mlhf.models.resnet_plan import resnet_plan, resnet_sizes
from mlhf.models.shapes import Planned, output_sizes, plan


@dataclass(frozen=True)
class ModelSummary:
    """Sizes of a model on given data.

    Attributes:
        parameters: Number of trainable values.
        activations: Floats per sample kept for the backward pass, an estimate.
        depth: Layers with weights on the longest way through.
        output_shape: Shape of the output for one sample.
    """

    parameters: int
    activations: int
    depth: int
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """One family of models; ``summarize`` raises SpecError for data that it cannot take."""

    name: str
    description: str
    params: type[Strict]
    summarize: Callable[[Any, DataInfo], ModelSummary]


def mlp_plan(params: MlpParams, data: DataInfo) -> tuple[Planned, ...]:
    """Return the planned layers of an mlp."""
    return _planned(recipes.mlp(params, data), data)


def cuda_convnet_plan(params: CudaConvnetParams, data: DataInfo) -> tuple[Planned, ...]:
    """Return the planned layers of a cuda_convnet."""
    return _planned(recipes.cuda_convnet(params, data), data)


def sequential_plan(params: SequentialParams, data: DataInfo) -> tuple[Planned, ...]:
    """Return the planned layers of a sequential model."""
    return _planned(params.layers, data)


def _planned(layers: list[Layer], data: DataInfo) -> tuple[Planned, ...]:
    return plan(layers, data, "/params/layers")


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
        )

    return summarize


def _summarize_resnet(params: ResnetParams, data: DataInfo) -> ModelSummary:
    parameters, activations, depth = resnet_sizes(resnet_plan(params, data), data)
    return ModelSummary(parameters, prod(data.input_shape) + activations, depth, output_sizes(data))


MODELS: dict[str, ModelSpec] = {
    model.name: model
    for model in (
        ModelSpec(
            "mlp",
            "A multilayer perceptron for images (flattened) and tables.",
            MlpParams,
            _summary_of(mlp_plan),
        ),
        ModelSpec(
            "cuda_convnet",
            "The convolutional network of the MLHF paper: two 5x5 convolutions, three dense.",
            CudaConvnetParams,
            _summary_of(cuda_convnet_plan),
        ),
        ModelSpec(
            "resnet",
            "A pre-activation residual network (v2) for images.",
            ResnetParams,
            _summarize_resnet,
        ),
        ModelSpec(
            "sequential",
            "A network of your own: a list of layers, residual blocks included.",
            SequentialParams,
            _summary_of(sequential_plan),
        ),
    )
}


def parse(name: str, params: dict[str, Any]) -> Strict:
    """Return the checked parameters. Raises SpecError at ``/name`` or under ``/params``."""
    return parse_params(lookup(MODELS, name, "model").params, params)


def summarize(name: str, params: dict[str, Any], data: DataInfo) -> ModelSummary:
    """Return the sizes of a model on these data.

    Raises:
        SpecError: The parameters are wrong or do not fit the data.
    """
    parsed = parse(name, params)
    return MODELS[name].summarize(parsed, data)
