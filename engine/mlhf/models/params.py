"""Parameters of the fixed architectures."""

from typing import Annotated, Literal

from pydantic import Field

from mlhf.core.config import Strict
from mlhf.models.layer_specs import ActivationName, Probability, Size

Width = Annotated[float, Field(ge=0.125, le=4)]


class MlpParams(Strict):
    """A multilayer perceptron."""

    hidden: Annotated[list[Size], Field(max_length=40)] = Field(
        default=[128, 64],
        description="Width of each hidden layer; none makes the model linear.",
    )
    activation: ActivationName = Field(
        default="relu", description="After each hidden layer (and its normalisation)."
    )
    batch_norm: bool = Field(default=False, description="Normalise before each activation.")
    dropout: Probability = Field(default=0.0, description="After each activation.")


class CudaConvnetParams(Strict):
    """The convolutional network of the MLHF paper."""

    width: Width = Field(
        default=1.0,
        description="Scales the 64 channels and the 384 and 192 dense units.",
    )


class ResnetParams(Strict):
    """A residual network of the pre-activation form (v2)."""

    depth: Annotated[int, Field(ge=8, le=50, strict=True)] = Field(
        default=20,
        description="8, 14, 20, 26, 32, 38, 44 (6n + 2): three stages of n basic blocks with "
        "16, 32, 64 channels, cifar stem only. 18, 34: four stages of basic blocks with 64, "
        "128, 256, 512 channels; 50: the same of bottleneck blocks, four times as wide at "
        "their ends.",
    )
    stem: Literal["auto", "cifar", "imagenet"] = Field(
        default="auto",
        description="cifar: one 3x3 convolution; imagenet: 7x7 with stride 2 and a max-pool. "
        "auto: imagenet for depths 18, 34, 50 on images of at least 64 pixels, else cifar.",
    )
    width: Width = Field(default=1.0, description="Scales all channels.")
