"""The nodes of an ONNX graph that are layers of torch.nn, with the weights in the file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Layers:
    """Makes the layers, and puts them into a module under the names of their weights.

    Args:
        owner: The module they belong to.
        nodes: All nodes.
        arrays: The weights in the file; only nodes whose weights are there become layers.
    """

    OPERATORS: ClassVar[frozenset[str]] = frozenset(
        ("Conv", "ConvTranspose", "BatchNormalization", "Gemm", "MatMul")
    )

    def __init__(self, owner: nn.Module, nodes: Sequence[Any], arrays: Mapping[str, Array]) -> None:
        self._owner = owner
        self._uses: dict[str, int] = {}
        for node in nodes:
            for name in node.inputs:
                self._uses[name] = self._uses.get(name, 0) + 1
        self._taken: set[str] = set()
        self._calls: dict[int, str] = {}
        for node in nodes:
            if node.operator in self.OPERATORS:
                self._make(node, arrays)

    def of(self, node: Any) -> nn.Module | None:
        """Return a node's layer, if it has one."""
        name = self._calls.get(id(node))
        return None if name is None else self._owner.get_submodule(name)

    def uses_alone(self, name: str) -> bool:
        """Whether a weight belongs to layers, and to nothing else."""
        return self._uses.get(name, 0) == 0

    def free_name(self, wanted: str) -> str:
        """Return a name that no layer and no other tensor has."""
        name, count = wanted, 1
        while name in self._taken or hasattr(self._owner, name):
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name

    def _make(self, node: Any, arrays: Mapping[str, Array]) -> None:
        own = node.inputs[1:]
        if (
            not own
            or not own[0]
            or not all(name in arrays and arrays[name].dtype == np.float32 for name in own if name)
        ):
            return
        # Exporters keep one of all equal vectors, such as biases of 0: each layer gets its own.
        if arrays[own[0]].ndim > 1 and self._uses[own[0]] > 1:
            return
        given = [arrays[name] if name else None for name in own]
        try:
            layer = _MAKERS[node.operator](node.attributes, *given)
        except (TypeError, ValueError, IndexError, RuntimeError, KeyError):
            return  # carried out as an operation, or refused there
        if layer is None:
            return
        name = self.free_name(_layer_name(own[0], node.outputs[0]))
        self._owner.add_module(name, layer)
        for each in filter(None, own):
            self._uses[each] -= 1
        self._calls[id(node)] = name


def _layer_name(weight: str, output: str) -> str:
    wanted = weight.removesuffix(".weight") if weight.endswith(".weight") else output
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in wanted)


def _filled(layer: nn.Module, **arrays: Array | None) -> nn.Module:
    with torch.no_grad():
        for name, array in arrays.items():
            if array is not None:
                target: Tensor = getattr(layer, name)
                if tuple(target.shape) != array.shape:
                    raise ValueError(f"{name} has the shape {array.shape}")
                target.copy_(torch.from_numpy(array.copy()))
    return layer


def _spatial(a: Mapping[str, Any], count: int) -> dict[str, Any]:
    pads = list(a.get("pads", [0] * 2 * count))
    if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or pads[:count] != pads[count:]:
        raise ValueError("padding")
    return {
        "stride": tuple(a.get("strides", [1] * count)),
        "padding": tuple(pads[:count]),
        "dilation": tuple(a.get("dilations", [1] * count)),
        "groups": a.get("group", 1),
    }


def _conv(a: Mapping[str, Any], weight: Array, bias: Array | None = None) -> nn.Module:
    kernel = weight.shape[2:]
    options = _spatial(a, len(kernel))
    inputs = weight.shape[1] * options["groups"]
    made = _CONV[len(kernel) - 1](inputs, weight.shape[0], kernel, bias=bias is not None, **options)
    return _filled(made, weight=weight, bias=bias)


def _transposed(a: Mapping[str, Any], weight: Array, bias: Array | None = None) -> nn.Module:
    kernel = weight.shape[2:]
    options = _spatial(a, len(kernel))
    options["output_padding"] = tuple(a.get("output_padding", [0] * len(kernel)))
    outputs = weight.shape[1] * options["groups"]
    made = _TRANSPOSED[len(kernel) - 1](
        weight.shape[0], outputs, kernel, bias=bias is not None, **options
    )
    return _filled(made, weight=weight, bias=bias)


def _batch_norm(
    a: Mapping[str, Any], weight: Array, bias: Array, mean: Array, var: Array
) -> nn.Module:
    momentum = 1 - a.get("momentum", 0.9)
    made = nn.BatchNorm2d(len(weight), eps=a.get("epsilon", 1e-5), momentum=momentum)
    return _filled(made, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _gemm(a: Mapping[str, Any], weight: Array, bias: Array | None = None) -> nn.Module | None:
    plain = a.get("alpha", 1.0) == 1 and a.get("beta", 1.0) == 1 and not a.get("transA")
    if not plain or weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        return None
    return _linear(weight if a.get("transB") else weight.T, bias)


def _matmul(a: Mapping[str, Any], weight: Array) -> nn.Module | None:
    return _linear(weight.T, None) if weight.ndim == 2 else None


def _linear(weight: Array, bias: Array | None) -> nn.Module:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return _filled(made, weight=weight, bias=bias)


_MAKERS: dict[str, Callable[..., nn.Module | None]] = {
    "Conv": _conv,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
