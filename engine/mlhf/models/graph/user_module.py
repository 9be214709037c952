"""A user's module as a graph's layers, parameters and buffers, each under its own name."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.layers import LAYERS
from mlhf.models.graph.values import encode_tensor

_KEPT_VALUES = 65_536
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class UserModule:
    """What a module consists of.

    Attributes:
        layers: The modules that become layers of the graph, with their names.
        tensors: Parameters and buffers by their first name.
        tied: Further names of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers: dict[nn.Module, str] = {}
        self._specs: dict[str, dict[str, Any]] = {}
        self._find_layers(module, "")
        self.tensors: dict[str, Tensor] = {}
        self.tied: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, tensor in _all_tensors(module):
            if id(tensor) in first:
                self.tied[name] = first[id(tensor)]
            else:
                first[id(tensor)] = name
                self.tensors[name] = tensor

    def to_json(self, used: set[str]) -> dict[str, Any]:
        """Return the graph's fields of layers and tensors.

        Args:
            used: Names of the layers and tensors that the nodes use; others are not trained.
        """
        persistent = set(self.module.state_dict())
        parameters, buffers, frozen = {}, {}, []
        aliases: dict[str, set[str]] = {}
        for name, target in self.tied.items():
            aliases.setdefault(target, set()).update((name, *_owners(name)))
        for name, tensor in self.tensors.items():
            layer = next((each for each in _owners(name) if each in self._specs), None)
            users = {name, *_owners(name), *aliases.get(name, ())}
            is_parameter = isinstance(tensor, nn.Parameter)
            if is_parameter and (not tensor.requires_grad or not used & users):
                frozen.append(name)
            if layer is not None:
                continue
            described = {"shape": list(tensor.shape), "dtype": str(tensor.dtype)[6:]}
            if is_parameter:
                parameters[name] = described
                continue
            kept = name in persistent
            if not kept or tensor.numel() <= _KEPT_VALUES:
                described["data"] = encode_tensor(tensor)
            buffers[name] = {**described, "persistent": kept}
        return {
            "layers": self._specs,
            "parameters": parameters,
            "buffers": buffers,
            "tied": self.tied,
            "frozen": frozen,
        }

    def _find_layers(self, module: nn.Module, name: str) -> None:
        for key, child in module._modules.items():
            if child is None:
                continue
            path = f"{name}.{key}" if name else key
            if (spec := layer_spec(child)) is not None:
                self._specs[path] = spec
                self.layers.setdefault(child, path)
            else:
                self._find_layers(child, path)
        if not name and (spec := layer_spec(module)) is not None:
            raise TraceError(
                f"no module of its own, only a {spec['type']}",
                "",
                f"torch.nn.Sequential(torch.nn.{spec['type']}(…))",
            )


def layer_spec(module: nn.Module) -> dict[str, Any] | None:
    """Return a module as a layer of a graph; None where it is none of torch.nn as it comes."""
    name = type(module).__name__
    if name not in LAYERS or type(module) is not getattr(nn, name):
        return None
    if any(getattr(module, hooks) for hooks in _HOOKS) or "forward" in vars(module):
        return None
    arguments = {}
    for argument in LAYERS[name]:
        arguments[argument.removesuffix("?")] = _argument(module, name, argument)
    dtypes = {t.dtype for t in module.parameters()}
    if len(dtypes) > 1:
        return None
    try:
        with torch.device("meta"):
            again: nn.Module = getattr(nn, name)(**arguments)
    except (TypeError, ValueError, RuntimeError):
        return None
    if {k: v.shape for k, v in again.state_dict().items()} != {
        k: v.shape for k, v in module.state_dict().items()
    }:
        return None
    changed = {k: v for k, v in arguments.items() if v is not None}
    spec: dict[str, Any] = {"type": name, "args": _json(changed)}
    if dtypes and dtypes != {torch.float32}:
        spec["dtype"] = str(dtypes.pop())[6:]
    return spec


def _argument(module: nn.Module, kind: str, argument: str) -> Any:
    if kind == "MultiheadAttention":
        found = {
            "bias?": module.in_proj_bias is not None,
            "add_bias_kv?": module.bias_k is not None,
        }
        if argument in found:
            return found[argument]
    if argument.endswith("?"):
        return getattr(module, argument[:-1]) is not None
    if kind in ("GRU", "RNN") and argument == "nonlinearity":
        return "tanh" if module.mode == "RNN_TANH" else "relu"
    value = getattr(module, argument)
    if kind == "Upsample" and argument == "scale_factor" and value is not None:
        return value
    return value


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(each) for key, each in value.items()}
    return [_json(each) for each in value] if isinstance(value, list | tuple) else value


def _all_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _owners(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
