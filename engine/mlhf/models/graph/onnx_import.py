"""An ONNX file as a graph, on the user's machine: it is carried out by torch, and traced.

The package ``onnx`` (of the extra ``onnx``) only parses. Weights in files beside it, control
flow and operators of other domains are refused.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra
from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.network import Network
from mlhf.models.graph.onnx_layers import Layers
from mlhf.models.graph.onnx_operators import OPERATORS, Attributes
from mlhf.models.graph.trace import trace

_MOST_NODES = 20_000
_SPATIAL = {"pads", "kernel_shape", "dilations", "strides", "output_padding", "output_shape"}
_WIDEST = 2**16  # of those
_MOST_VALUES = 2**22  # of a sample that is made up: reading takes some hundred bytes for each


def from_onnx(path: str | Path, example: Any = None) -> Network:
    """Return an ONNX file's network as data, with its weights.

    Convolutions, linear layers and batch norm become layers of torch.nn, named as their weights
    are. In training mode batch norm and dropout train, as torch's do.

    Args:
        path: The file, all of it: no external data.
        example: Inputs in batches; drawn from the shapes in the file where they are given there.

    Raises:
        DataError: it is no ONNX file, or has its weights elsewhere.
        TraceError: it has an operator that graphs do not have.
    """
    with from_extra("onnx"):
        import onnx
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # the errors of protobuf have no common base
        raise DataError(f"{Path(path).name} is no ONNX file: {str(error)[:200]}") from None
    module = OnnxModule(model)
    given = module.example() if example is None else example
    return trace(module, module.named(given))


class OnnxModule(nn.Module):
    """Carries out an ONNX graph node by node.

    Args:
        model: A parsed file.

    Raises:
        DataError, TraceError: as ``from_onnx``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        from onnx import TensorProto, numpy_helper

        graph = model.graph
        if len(graph.node) > _MOST_NODES:
            raise DataError(f"the file has {len(graph.node):,} nodes; at most {_MOST_NODES:,}")
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for tensor in graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                raise DataError(
                    f"{tensor.name} lies in another file; save the model with its weights inside "
                    "(onnx.save_model(…, save_as_external_data=False))"
                )
            arrays[tensor.name] = _array(tensor, numpy_helper)
        self._nodes = []
        for node in (_Node(each, numpy_helper) for each in graph.node):
            if node.operator == "Identity" and node.inputs[0] in arrays:
                arrays[node.outputs[0]] = arrays[node.inputs[0]]  # equal weights, kept once
            else:
                self._nodes.append(node)
        self._check_names(graph, arrays)
        for node in self._nodes:
            if node.operator not in OPERATORS and node.operator not in Layers.OPERATORS:
                raise TraceError(f"the ONNX operator {node.operator}", "", "a model without it")
        self._inputs = [each for each in graph.input if each.name not in arrays]
        self._names = {each.name: _identifier(each.name) for each in self._inputs}
        self._outputs = [each.name for each in graph.output]
        self._layers = Layers(self, self._nodes, arrays)
        self._held: dict[str, str] = {}
        self._constants: dict[str, Any] = {}
        for name, array in arrays.items():
            if not self._layers.uses_alone(name):
                self._hold(name, array)

    def _check_names(self, graph: Any, arrays: Mapping[str, Any]) -> None:
        """Raise DataError where a value is used before anything gives it."""
        known = {"", *arrays, *(each.name for each in graph.input)}
        for node in self._nodes:
            used = [name for name in node.inputs if name not in known]
            if used or not node.outputs:
                what = (
                    f"uses {used[0]!r}, which nothing before it gives" if used else "gives nothing"
                )
                raise DataError(f"an ONNX node {node.operator} {what}")
            known |= set(node.outputs)
        missing = [each.name for each in graph.output if each.name not in known or not each.name]
        if missing or not graph.output:
            what = (
                f"the output {missing[0]!r} of the file is given by no node"
                if missing
                else ("the file has no output")
            )
            raise DataError(what)

    def _hold(self, name: str, array: np.ndarray[Any, Any]) -> None:
        """Floats are parameters; whole numbers, and single ones, stay numbers."""
        if array.dtype.kind != "f" or array.size <= 1:
            self._constants[name] = array
            return
        self._held[name] = held = self._layers.free_name(_identifier(name))
        self.register_parameter(held, nn.Parameter(torch.from_numpy(array.copy())))

    def example(self) -> dict[str, Tensor]:
        """Return random inputs of the shapes in the file.

        Raises:
            TraceError: a shape is not given there, apart from the batch.
        """
        found = {}
        for each in self._inputs:
            sizes = [d.dim_value for d in each.type.tensor_type.shape.dim]
            if not sizes or any(size <= 0 for size in sizes[1:]):
                raise TraceError(
                    f"an input ({each.name}) whose shape the file does not tell",
                    "",
                    "the example's inputs: from_onnx(path, example)",
                )
            if math.prod(sizes[1:]) > _MOST_VALUES:
                raise TraceError(
                    f"an input ({each.name}) of shape {tuple(sizes[1:])}",
                    "",
                    "smaller inputs in the example: from_onnx(path, example)",
                )
            kind = each.type.tensor_type.elem_type
            is_float = kind in (1, 10, 11, 16)
            shape = (4, *sizes[1:])
            found[self._names[each.name]] = (
                torch.randn(shape) if is_float else torch.zeros(shape, dtype=torch.int64)
            )
        return found

    def named(self, example: Any) -> dict[str, Tensor]:
        """Return inputs by their names, which they may have or be in the order of."""
        if isinstance(example, Mapping):
            return {_identifier(name): value for name, value in example.items()}
        parts = example if isinstance(example, tuple | list) else [example]
        return dict(zip(self._names.values(), parts, strict=False))

    def forward(self, **named: Tensor) -> Any:
        """Return the outputs for inputs by their names."""
        values: dict[str, Any] = dict(self._constants)
        values |= {name: getattr(self, held) for name, held in self._held.items()}
        values |= {name: named[own] for name, own in self._names.items()}
        for node in self._nodes:
            layer = self._layers.of(node)
            if layer is not None:
                results: Any = _carried_out(_called(layer), node, [values[node.inputs[0]]])
            else:
                given = [values[name] if name else None for name in node.inputs]
                results = _carried_out(OPERATORS.get(node.operator), node, given)
            if isinstance(results, np.generic):
                results = np.asarray(results)
            several = results if isinstance(results, tuple) else (results,)
            values |= dict(zip(node.outputs, several, strict=False))
        found = [torch.as_tensor(values[name]) for name in self._outputs]
        return found[0] if len(found) == 1 else dict(zip(self._outputs, found, strict=True))


class _Node:
    """A node: operator, names, attributes as Python values."""

    def __init__(self, node: Any, numpy_helper: Any) -> None:
        from onnx import GraphProto, TensorProto, helper

        self.operator: str = (
            node.op_type if node.domain in ("", "ai.onnx") else (f"{node.domain}.{node.op_type}")
        )
        self.inputs, self.outputs = list(node.input), list(node.output)
        attributes: dict[str, Any] = {}
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, GraphProto):
                raise TraceError(
                    f"control flow in the ONNX operator {self.operator}", "", "a model without it"
                )
            if isinstance(value, TensorProto):
                value = _array(value, numpy_helper)
            if attribute.name in _SPATIAL and isinstance(value, list | int):
                widest = max(value, default=0) if isinstance(value, list) else value
                if widest > _WIDEST:
                    what = f"{attribute.name} of an ONNX node {self.operator}"
                    raise DataError(f"{what} are beyond {_WIDEST:,}")
            attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
        self.attributes = Attributes(attributes)


def _carried_out(operator: Callable[..., Any] | None, node: _Node, given: list[Any]) -> Any:
    try:
        if operator is None:
            raise ValueError("its weights are not in the file, or are used elsewhere too")
        return operator(node.attributes, len(node.outputs), *given)
    except TraceError:
        raise
    except (
        *(TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError),
        ArithmeticError,
    ) as error:
        raise TraceError(
            f"the ONNX operator {node.operator} in a form that is not read: {str(error)[:200]}",
            "",
            "a model in which it is of a plain form",
        ) from None


def _array(tensor: Any, numpy_helper: Any) -> np.ndarray[Any, Any]:
    try:
        found: np.ndarray[Any, Any] = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        raise DataError(f"{tensor.name} is broken: {str(error)[:200]}") from None
    return found


def _called(layer: nn.Module) -> Callable[..., Any]:
    return lambda _, __, x: layer(x)


def _identifier(name: str) -> str:
    found = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    return found or "x"
