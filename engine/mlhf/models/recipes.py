"""Fixed architectures that are plain chains, written as the layers they consist of."""

from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models import layer_specs as spec
from mlhf.models.params import CudaConvnetParams, MlpParams
from mlhf.models.shapes import Planned, plan


def need_image(data: DataInfo, model: str, side: int) -> None:
    """Raise SpecError unless the data are images of at least ``side`` pixels each way."""
    if data.kind != "image":
        raise SpecError("/name", f"{model} takes images, not a {data.kind}")
    if min(data.input_shape[1:]) < side:
        raise SpecError(
            "/name", f"{model} needs images of at least {side}x{side}, not {data.input_shape[1:]}"
        )


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times the width factor, at least 1."""
    return max(1, round(channels * width))


def mlp(params: MlpParams, data: DataInfo) -> list[spec.Layer]:
    """Return the layers of a multilayer perceptron; images are flattened."""
    if data.kind == "text":
        raise SpecError("/name", "mlp does not take text; use sequential with an embedding")
    layers: list[spec.Layer] = [spec.Flatten(type="flatten")] if data.kind == "image" else []
    for width in params.hidden:
        layers.append(spec.Linear(type="linear", out_features=width))
        if params.batch_norm:
            layers.append(spec.BatchNorm(type="batch_norm"))
        layers.append(spec.Activation(type="activation", function=params.activation))
        if params.dropout:
            layers.append(spec.Dropout(type="dropout", p=params.dropout))
    return [*layers, spec.Linear(type="linear")]


def cuda_convnet(params: CudaConvnetParams, data: DataInfo) -> list[spec.Layer]:
    """Return the layers of the paper's convolutional network."""
    need_image(data, "cuda_convnet", 4)
    relu = spec.Activation(type="activation", function="relu")
    channels = scaled(64, params.width)
    conv = spec.Conv2d(type="conv2d", out_channels=channels, kernel_size=5, padding=2)
    pool = spec.MaxPool2d(type="max_pool2d", kernel_size=2)
    dense = [
        spec.Linear(type="linear", out_features=scaled(units, params.width)) for units in (384, 192)
    ]
    return [
        *(conv, relu, pool),
        *(conv, relu, pool),
        spec.Flatten(type="flatten"),
        *(dense[0], relu, dense[1], relu),
        spec.Linear(type="linear"),
    ]


def mlp_plan(params: MlpParams, data: DataInfo) -> tuple[Planned, ...]:
    """Return the planned layers of an mlp."""
    return _planned(mlp(params, data), data)


def cuda_convnet_plan(params: CudaConvnetParams, data: DataInfo) -> tuple[Planned, ...]:
    """Return the planned layers of a cuda_convnet."""
    return _planned(cuda_convnet(params, data), data)


def sequential_plan(params: spec.SequentialParams, data: DataInfo) -> tuple[Planned, ...]:
    """Return the planned layers of a sequential model."""
    return _planned(params.layers, data)


def _planned(layers: list[spec.Layer], data: DataInfo) -> tuple[Planned, ...]:
    return plan(layers, data, "/params/layers")
