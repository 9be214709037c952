"""What is shown of a network."""

from datetime import datetime

from pydantic import BaseModel, Field


class TensorView(BaseModel):
    """An input or an output."""

    name: str = Field(description="Empty: the only output, which has no name.")
    shape: list[int] = Field(description="Of one sample.")
    dtype: str


class NetworkView(BaseModel):
    """A network that a job can name as `model.params.network`."""

    id: str
    name: str
    inputs: list[TensorView]
    outputs: list[TensorView]
    parameters: int = Field(description="Values that are trained.")
    frozen: int = Field(description="Values of parameters that are not.")
    activations_per_sample: int
    depth: int = Field(description="Layers with weights on the longest way through.")
    weights: bool = Field(description="Whether weights came with it.")
    sha256: str = Field(description="Of its graph.")
    size: int = Field(description="Bytes of its files.")
    created_at: datetime
