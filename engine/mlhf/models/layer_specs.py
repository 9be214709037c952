"""The layers of the ``sequential`` model, as data: a closed union on ``type``."""

from typing import Annotated, Literal

from pydantic import Field

from mlhf.core.config import Strict

Size = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Window = Annotated[int, Field(ge=1, le=1024, strict=True)]
Padding = Annotated[int, Field(ge=0, le=1024, strict=True)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, le=1)]

ActivationName = Literal[
    "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus"
]


class Linear(Strict):
    """A linear map of the last axis."""

    type: Literal["linear"]
    out_features: Size | None = Field(
        default=None, description="Default: as many as the data has outputs."
    )
    bias: bool = True


class Conv2d(Strict):
    """A convolution of an image."""

    type: Literal["conv2d"]
    out_channels: Size
    kernel_size: Window = 3
    stride: Window = 1
    padding: Padding = 0
    groups: Size = 1
    bias: bool = True


class CausalConv1d(Strict):
    """A convolution over the time of a sequence that sees no later step."""

    type: Literal["causal_conv1d"]
    out_channels: Size
    kernel_size: Window = 3
    dilation: Window = 1
    bias: bool = True


class MaxPool2d(Strict):
    """The largest value of each window."""

    type: Literal["max_pool2d"]
    kernel_size: Window = 2
    stride: Window | None = Field(default=None, description="Default: the kernel size.")
    padding: Padding = 0


class AvgPool2d(Strict):
    """The mean of each window."""

    type: Literal["avg_pool2d"]
    kernel_size: Window = 2
    stride: Window | None = Field(default=None, description="Default: the kernel size.")
    padding: Padding = 0


class GlobalAvgPool(Strict):
    """The mean of each channel of an image."""

    type: Literal["global_avg_pool"]


class BatchNorm(Strict):
    """Batch normalisation of an image's channels or a vector's features."""

    type: Literal["batch_norm"]
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    eps: Epsilon = 1e-5


class LayerNorm(Strict):
    """Normalisation of each sample (of each step of a sequence)."""

    type: Literal["layer_norm"]
    eps: Epsilon = 1e-5


class GroupNorm(Strict):
    """Normalisation of groups of channels of each sample."""

    type: Literal["group_norm"]
    groups: Size = 8
    eps: Epsilon = 1e-5


class Activation(Strict):
    """An elementwise function."""

    type: Literal["activation"]
    function: ActivationName = "relu"


class Flatten(Strict):
    """All axes of a sample into one."""

    type: Literal["flatten"]


class Dropout(Strict):
    """Sets values to zero at random in training."""

    type: Literal["dropout"]
    p: Probability = 0.5


class ImageRows(Strict):
    """An image as the sequence of its rows."""

    type: Literal["image_rows"]


class Embedding(Strict):
    """A vector for each token."""

    type: Literal["embedding"]
    dimension: Size


class Lstm(Strict):
    """Long short-term memory over a sequence."""

    type: Literal["lstm"]
    hidden_size: Size
    num_layers: Annotated[int, Field(ge=1, le=16, strict=True)] = 1


class Gru(Strict):
    """Gated recurrent units over a sequence."""

    type: Literal["gru"]
    hidden_size: Size
    num_layers: Annotated[int, Field(ge=1, le=16, strict=True)] = 1


class PositionEmbedding(Strict):
    """Adds a learned vector for each place in a sequence."""

    type: Literal["position_embedding"]


class CausalAttention(Strict):
    """Self-attention of a sequence in which no step sees a later one."""

    type: Literal["causal_attention"]
    heads: Annotated[int, Field(ge=1, le=64, strict=True)] = 4


class LastStep(Strict):
    """The last step of a sequence."""

    type: Literal["last_step"]


class MeanOverTime(Strict):
    """The mean over the steps of a sequence."""

    type: Literal["mean_over_time"]


class Residual(Strict):
    """The layers' output plus their input."""

    type: Literal["residual"]
    layers: Annotated[list["Layer"], Field(min_length=1, max_length=200)]
    shortcut: Literal["auto", "identity", "projection"] = Field(
        default="auto",
        description="How the input reaches the sum: as it is, by a learned linear map "
        "(1x1 convolution), or the first where shapes allow it.",
    )


Layer = Annotated[
    Linear
    | Conv2d
    | CausalConv1d
    | MaxPool2d
    | AvgPool2d
    | GlobalAvgPool
    | BatchNorm
    | LayerNorm
    | GroupNorm
    | Activation
    | Flatten
    | Dropout
    | ImageRows
    | Embedding
    | Lstm
    | Gru
    | PositionEmbedding
    | CausalAttention
    | LastStep
    | MeanOverTime
    | Residual,
    Field(discriminator="type"),
]

Residual.model_rebuild()


class SequentialParams(Strict):
    """Layers applied one after the other."""

    layers: Annotated[list[Layer], Field(min_length=1, max_length=200)] = Field(
        description="At most 200 with those inside residual blocks, nested at most 8 deep; "
        "the last must give the data's outputs."
    )
