"""A network as JSON: inputs, layers, tensors, nodes and outputs. Needs no torch.

Values in ``args``, ``kwargs`` and ``outputs`` are JSON, with strings that begin with ``%`` as
references to inputs, nodes, parameters and buffers, and objects of one key for what JSON lacks:
``{"batch": 4, "plus": 1}`` is 4 B + 1 for a batch of B samples, ``{"training": 0.1,
"evaluation": 0.0}`` what depends on the mode, ``{"dtype": "float32"}``, ``{"float": "-inf"}``,
``{"slice": [start, stop, step]}``, ``{"ellipsis": true}`` and ``{"tuple": […]}`` in an index.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from mlhf.core.config import Strict
from mlhf.models.graph.layers import LAYERS
from mlhf.models.graph.table import OPERATIONS

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+){0,63}$")]
Size = Annotated[int, Field(ge=0, le=2**31, strict=True)]
Shape = Annotated[list[Size], Field(max_length=16)]
Dtype = Literal[
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
    "bool", "complex64",
]  # fmt: skip

MAX_NODES = 20_000
MAX_TENSORS = 50_000


class Input(Strict):
    """One input, of B samples."""

    name: Name
    shape: Shape = Field(description="Of one sample; the batch is the first axis.")
    dtype: Dtype = "float32"


class LayerNode(Strict):
    """A layer of torch.nn under its name in the user's module."""

    type: Literal[tuple(LAYERS)]  # type: ignore[valid-type]
    args: dict[str, Any] = Field(default_factory=dict, max_length=16)
    dtype: Dtype = Field(default="float32", description="Of its parameters.")


class ParameterSpec(Strict):
    """A parameter that belongs to no layer of torch.nn."""

    shape: Shape
    dtype: Dtype = "float32"


class Buffer(Strict):
    """A tensor that is not trained."""

    shape: Shape
    dtype: Dtype = "float32"
    persistent: bool = Field(default=True, description="Whether it is in the state_dict.")
    data: Annotated[list[Any], Field(max_length=4096)] | str | None = Field(
        default=None,
        description="Its values: numbers in row-major order, or the base64 of their "
        "zlib-compressed little-endian bytes.",
    )


class Node(Strict):
    """One operation: a layer by its name, or one of the table's."""

    name: Name
    op: Literal[tuple(sorted(OPERATIONS))] | None = None  # type: ignore[valid-type]
    layer: Name | None = None
    args: Annotated[list[Any], Field(max_length=4096)] = Field(default_factory=list)
    kwargs: Annotated[dict[str, Any], Field(max_length=64)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.op is None) == (self.layer is None):
            raise ValueError("a node has either an op or a layer")
        return self


class Graph(Strict):
    """A network: its nodes in the order in which they are computed."""

    format: Literal[1] = 1
    inputs: Annotated[list[Input], Field(min_length=1, max_length=64)]
    layers: Annotated[dict[Name, LayerNode], Field(max_length=MAX_TENSORS)] = Field(
        default_factory=dict
    )
    parameters: Annotated[dict[Name, ParameterSpec], Field(max_length=MAX_TENSORS)] = Field(
        default_factory=dict
    )
    buffers: Annotated[dict[Name, Buffer], Field(max_length=MAX_TENSORS)] = Field(
        default_factory=dict
    )
    tied: Annotated[dict[Name, Name], Field(max_length=MAX_TENSORS)] = Field(
        default_factory=dict, description="Names of the same tensor: the second is used."
    )
    frozen: Annotated[list[Name], Field(max_length=MAX_TENSORS)] = Field(
        default_factory=list, description="Parameters that are not trained."
    )
    nodes: Annotated[list[Node], Field(max_length=MAX_NODES)]
    training_nodes: Annotated[list[Node], Field(max_length=MAX_NODES)] | None = Field(
        default=None, description="What is computed in training mode, where that differs."
    )
    outputs: Any = Field(description="A reference, or lists and objects of references.")
    training_outputs: Any = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        self._check(self.nodes, self.outputs, "nodes", "outputs")
        if self.training_nodes is None and self.training_outputs is not None:
            raise _wrong("/training_outputs", "they need training_nodes; leave out both or none")
        if self.training_nodes is not None:
            self._check(
                self.training_nodes, self.training_outputs, "training_nodes", "training_outputs"
            )
        return self

    def _check(self, nodes: list[Node], outputs: Any, place: str, outputs_place: str) -> None:
        known = {each.name for each in self.inputs}
        if len(known) < len(self.inputs):
            raise _wrong("/inputs", "two inputs have one name")
        for at, node in enumerate(nodes):
            where = f"/{place}/{at}"
            for name in references([node.args, node.kwargs]):
                if name not in known and not self._is_tensor(name):
                    raise _wrong(
                        where,
                        f"{node.name}: %{name} is not an input, an earlier node, a parameter or a "
                        "buffer",
                    )
            if node.layer is not None and node.layer not in self.layers:
                raise _wrong(f"{where}/layer", f"{node.name}: there is no layer {node.layer!r}")
            if node.name in known:
                raise _wrong(f"{where}/name", f"the name {node.name} is taken")
            known.add(node.name)
        found = list(references(outputs))
        if not found:
            raise _wrong(f"/{outputs_place}", 'there is no reference to a node, such as "%head"')
        for name in found:
            if name not in known and not self._is_tensor(name):
                raise _wrong(f"/{outputs_place}", f"%{name} is not an input or a node")

    def _is_tensor(self, name: str) -> bool:
        if name in self.parameters or name in self.buffers or name in self.tied:
            return True
        owner = name.rpartition(".")[0]
        return owner in self.layers or owner.rpartition(".")[0] in self.layers


def _wrong(pointer: str, message: str) -> PydanticCustomError:
    """An error of the whole graph that says where in it."""
    told = {"message": message, "pointer": pointer}
    return PydanticCustomError("value_error", "{message}", told)


class GraphParams(Strict):
    """A network of your own: its graph, or the file or upload that holds it."""

    graph: Graph | None = Field(default=None, description="The graph itself, without weights.")
    network: Annotated[str, StringConstraints(min_length=1, max_length=400)] | None = Field(
        default=None,
        description="An uploaded network (net_…); in the library the path of its .json file, "
        "beside which its .safetensors lies.",
    )
    initial: Literal["given", "fresh"] | None = Field(
        default=None,
        description="The parameters it starts from: those that came with it, or fresh ones by "
        "layer and seed. Default: those that came with it, if any did.",
    )
    output: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None,
        description="Which of several outputs is trained: its name, or its number. Default: the "
        "only one, or `logits`.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.graph is None) == (self.network is None):
            raise ValueError("give graph or network, one of the two")
        return self


def references(value: Any) -> Iterator[str]:
    """Yield the names that a value refers to."""
    if isinstance(value, str):
        if value.startswith("%"):
            yield value[1:]
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from references(each)
