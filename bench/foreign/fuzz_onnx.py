"""Mutated ONNX files through ``from_onnx``: read, or refused by an error that says why.

A small network's file has one to three of its parts changed (operators, names, attributes,
shapes, values), or some of its bytes. What is read has its graph examined as an upload's is.
"""

import copy
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlhf.core.errors import DataError, SpecError
from mlhf.models.graph.checks import examine
from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.onnx_import import from_onnx
from mlhf.models.graph.onnx_operators import OPERATORS

_NUMBERS = (0, -1, 1, 2, 3, 10**6, 2**31, 2**62, -(2**63))


def network_file() -> Any:
    """Return a small convolutional network as a parsed ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    conv, linear = nn.Conv2d(1, 4, 3, 2, 1), nn.Linear(64, 3)
    weights = {f"conv.{k}": v for k, v in conv.state_dict().items()}
    weights |= {f"fc.{k}": v for k, v in linear.state_dict().items()}
    nodes = [
        helper.make_node(
            "Conv", ["x", "conv.weight", "conv.bias"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["c", "shape"], ["d"]),
        helper.make_node("Gemm", ["d", "fc.weight", "fc.bias"], ["e"], transB=1),
        helper.make_node("Softmax", ["e"], ["f"], axis=1),
        helper.make_node("Mul", ["e", "f"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(v.numpy(), k) for k, v in weights.items()]
    tensors += [
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [0]),
        helper.make_tensor("rest", TensorProto.INT64, [1], [64]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors))


def outcome(model: Any, chance: random.Random) -> str:
    """Return what came of one mutant; anything but the errors that are meant is raised."""
    content = mutated(model, chance)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(content)
        try:
            torch.manual_seed(0)
            examine(from_onnx(path).graph)
        except (DataError, TraceError, SpecError):
            return "onnx refused"
    return "onnx read"


def mutated(model: Any, chance: random.Random) -> bytes:
    """Return a changed file."""
    if chance.random() < 0.2:
        content = bytearray(model.SerializeToString())
        for _ in range(chance.randint(1, 5)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        return bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
    changed = copy.deepcopy(model)
    for _ in range(chance.randint(1, 3)):
        chance.choice(_CHANGES)(changed.graph, chance)
    found: bytes = changed.SerializeToString()
    return found


def _operator(graph: Any, chance: random.Random) -> None:
    chance.choice(graph.node).op_type = chance.choice([*sorted(OPERATORS), "If", "no such"])


def _input(graph: Any, chance: random.Random) -> None:
    node = chance.choice(graph.node)
    names = [name for each in graph.node for name in (*each.input, *each.output)]
    if node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice([*names, "", "nowhere"])


def _attribute(graph: Any, chance: random.Random) -> None:
    from onnx import helper

    node = chance.choice(graph.node)
    name = chance.choice(("axis", "strides", "pads", "group", "dilations", "transB", "perm", "to"))
    number = chance.choice(_NUMBERS)
    value = chance.choice((number, [number], [number, number], float(number), "text"))
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _shape(graph: Any, chance: random.Random) -> None:
    dims = chance.choice(graph.initializer).dims
    if dims:
        dims[chance.randrange(len(dims))] = chance.choice(_NUMBERS)


def _input_shape(graph: Any, chance: random.Random) -> None:
    for each in graph.input:
        dims = each.type.tensor_type.shape.dim
        if dims:
            chance.choice(dims).dim_value = chance.choice(_NUMBERS)


def _values(graph: Any, chance: random.Random) -> None:
    tensor = chance.choice(graph.initializer)
    if tensor.int64_data:
        tensor.int64_data[0] = chance.choice(_NUMBERS)
    elif tensor.raw_data:
        tensor.raw_data = tensor.raw_data[: chance.randrange(len(tensor.raw_data))]


def _fewer(graph: Any, chance: random.Random) -> None:
    which = chance.choice((graph.node, graph.initializer, graph.output, graph.input))
    if len(which):
        del which[chance.randrange(len(which))]


_CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_operator, _input, _attribute, _shape, _input_shape, _values, _fewer),
)
