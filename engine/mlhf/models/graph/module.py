"""A graph as a module of torch: real layers under the user's names, and the graph run over them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.core.errors import SpecError, under
from mlhf.models.graph.layers import LAYERS
from mlhf.models.graph.operations import callable_of
from mlhf.models.graph.sizes import Outputs
from mlhf.models.graph.spec import Graph, LayerNode, Node, references
from mlhf.models.graph.table import FACTORIES
from mlhf.models.graph.values import decode, decode_tensor, dtype_of


@dataclass(frozen=True)
class _Step:
    """A node, prepared: what it calls, its arguments, and which values are not needed after it."""

    at: int
    node: Node
    call: Any
    makes: bool
    args: tuple[tuple[bool, Any], ...]
    kwargs: tuple[tuple[str, bool, Any], ...]
    last_uses: tuple[str, ...]


class GraphModule(nn.Module):
    """A network of a graph.

    Its ``state_dict`` has the names of the module that the graph was traced from. Its layers are
    those of torch.nn, so that what looks for layers by their types finds them.

    Args:
        graph: A checked graph.
        output: Which of several outputs ``forward`` returns; several: these, side by side as
            (B, Σ sizes); None: all, as the graph has them.
        columns: Whether an output of one number a sample, (B,), is returned as (B, 1).

    Raises:
        SpecError: a layer or tensor cannot be made; the pointer is into the graph.
    """

    def __init__(self, graph: Graph, output: Outputs = None, *, columns: bool = False) -> None:
        super().__init__()
        self._owners: dict[str, nn.Module] = {"": self}
        for name, layer in graph.layers.items():
            with under(f"/layers/{name}"):
                self._place(name, _layer(layer))
        for name, parameter in graph.parameters.items():
            owner, key = self._home(name)
            value = torch.zeros(parameter.shape, dtype=dtype_of(parameter.dtype))
            with under(f"/parameters/{name}"):
                owner._parameters[key] = _parameter(value)
        for name, buffer in graph.buffers.items():
            owner, key = self._home(name)
            with under(f"/buffers/{name}"):
                if buffer.data is not None and torch.get_default_device().type != "meta":
                    value = decode_tensor(buffer.data, buffer.shape, buffer.dtype)
                else:
                    value = torch.zeros(buffer.shape, dtype=dtype_of(buffer.dtype))
            owner._buffers[key] = value
            if not buffer.persistent:
                owner._non_persistent_buffers_set.add(key)
        for name, target in graph.tied.items():
            with under(f"/tied/{name}"):
                self._tie(name, target)
        for at, name in enumerate(graph.frozen):
            with under(f"/frozen/{at}"):
                self.tensor(name).requires_grad_(False)
        self._inputs = tuple(each.name for each in graph.inputs)
        self._steps = self._prepared(graph.nodes, graph.outputs, "/nodes")
        self._outputs = _chosen(graph.outputs, output)
        self._training_steps, self._training_outputs = self._steps, self._outputs
        if graph.training_nodes is not None:
            self._training_steps = self._prepared(
                graph.training_nodes, graph.training_outputs, "/training_nodes"
            )
            self._training_outputs = _chosen(graph.training_outputs, output)
        self._side_by_side = isinstance(output, tuple)
        self._columns = columns
        self._graph = graph

    @property
    def definition(self) -> Graph:
        """What it was built from."""
        return self._graph

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs for inputs in the graph's order or by their names."""
        given = dict(zip(self._inputs, args, strict=False)) | kwargs
        if set(given) != set(self._inputs) or len(args) > len(self._inputs):
            raise TypeError(f"the inputs are {', '.join(self._inputs)}; given: {', '.join(given)}")
        steps = self._training_steps if self.training else self._steps
        return self._run(steps, given)

    def _run(self, steps: tuple[_Step, ...], values: dict[str, Any]) -> Any:
        first: Tensor = values[self._inputs[0]]
        batch, device, training = first.shape[0], first.device, self.training

        def look_up(name: str) -> Any:
            return values[name] if name in values else self.tensor(name)

        for step in steps:
            args = [
                decode(value, look_up, batch, training) if dynamic else value
                for dynamic, value in step.args
            ]
            kwargs = {
                name: decode(value, look_up, batch, training) if dynamic else value
                for name, dynamic, value in step.kwargs
            }
            if step.makes:
                kwargs["device"] = device
            values[step.node.name] = self._called(step, args, kwargs)
            for name in step.last_uses:
                del values[name]
        outputs = self._training_outputs if training else self._outputs
        found = _collected(outputs, look_up)
        if self._side_by_side:
            return torch.cat([each.reshape(batch, -1) for each in found], 1)
        if self._columns and isinstance(found, Tensor) and found.ndim == 1:
            return found.unsqueeze(1)
        return found

    def _called(self, step: _Step, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return step.call(*args, **kwargs)

    def _prepared(self, nodes: list[Node], outputs: Any, place: str) -> tuple[_Step, ...]:
        kept = {*references(outputs)}
        last: dict[str, int] = {}
        for at, node in enumerate(nodes):
            for name in (node.name, *references([node.args, node.kwargs])):
                last[name] = at
        made = {node.name for node in nodes}
        ends: dict[int, list[str]] = {}
        for name, at in last.items():
            if name in made and name not in kept:
                ends.setdefault(at, []).append(name)
        made.update(self._inputs)
        for name in references([*[[node.args, node.kwargs] for node in nodes], outputs]):
            if name not in made:
                with under(place):
                    self.tensor(name)
        return tuple(
            self._step(at, node, tuple(ends.get(at, ())), place) for at, node in enumerate(nodes)
        )

    def _step(self, at: int, node: Node, last_uses: tuple[str, ...], place: str) -> _Step:
        with under(f"{place}/{at}"):
            if node.layer is not None:
                call: Any = self._owners.get(node.layer)
            else:
                call = callable_of(str(node.op))
                if call is None:
                    raise SpecError("/op", f"this version of torch has no {node.op}")
            if "device" in node.kwargs:
                raise SpecError("/kwargs/device", "a graph has no devices; leave it out")
            return _Step(
                at=at,
                node=node,
                call=call,
                makes=node.op in FACTORIES,
                args=tuple(_static(value) for value in node.args),
                kwargs=tuple((name, *_static(value)) for name, value in node.kwargs.items()),
                last_uses=last_uses,
            )

    def tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer by its name. Raises SpecError."""
        owner, _, key = name.rpartition(".")
        module = self._owners.get(owner)
        if module is None or not _has(module, key):
            raise SpecError("", f"{name} is no parameter or buffer")
        found: Tensor = getattr(module, key)
        return found

    def _home(self, name: str) -> tuple[nn.Module, str]:
        """The module that a dotted name's tensor belongs to, made where it is not there."""
        owner, _, key = name.rpartition(".")
        if owner not in self._owners:
            self._place(owner, nn.Module())
        return self._owners[owner], key

    def _place(self, name: str, module: nn.Module) -> None:
        owner, key = self._home(name)
        # Not add_module: a user's name may be that of a method.
        owner._modules[key] = module
        for path, child in module.named_modules(prefix=name):
            self._owners[path] = child

    def _tie(self, name: str, target: str) -> None:
        found = self.tensor(target)
        owner, key = self._home(name)
        owner._parameters.pop(key, None)
        buffers = owner._buffers if not isinstance(found, nn.Parameter) else None
        if buffers is not None:
            buffers[key] = found
        else:
            owner._parameters[key] = found  # type: ignore[assignment]


def _has(module: nn.Module, key: str) -> bool:
    return module._parameters.get(key) is not None or module._buffers.get(key) is not None


def _static(value: Any) -> tuple[bool, Any]:
    """Whether a value differs from call to call; and the value, decoded where it does not."""
    if any(references(value)) or _depends(value):
        return True, value
    return False, decode(value, lambda name: None, 0, False)


def _depends(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_depends, value))
    if isinstance(value, dict):
        return "batch" in value or "training" in value or any(map(_depends, value.values()))
    return False


def _layer(layer: LayerNode) -> nn.Module:
    known = {name.removesuffix("?") for name in LAYERS[layer.type]}
    for name in layer.args:
        if name not in known:
            told = ", ".join(sorted(known)) or "none"
            raise SpecError(f"/args/{name}", f"{layer.type} has no such argument; it has: {told}")
    try:
        arguments = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in layer.args.items()
        }
        made: nn.Module = getattr(nn, layer.type)(**arguments)
        return made.to(dtype_of(layer.dtype))
    except (TypeError, ValueError, RuntimeError, AssertionError, OverflowError) as error:
        raise SpecError("/args", f"{layer.type} does not take these: {_short(error)}") from None
    except (ArithmeticError, LookupError, AttributeError, NotImplementedError) as error:
        raise SpecError("/args", f"{layer.type} does not take these: {_short(error)}") from None


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=value.is_floating_point() or value.is_complex())


def _chosen(outputs: Any, output: Outputs) -> Any:
    if output is None:
        return outputs
    if isinstance(output, tuple):
        return [_chosen(outputs, each) for each in output]
    if isinstance(outputs, Mapping) and output in outputs:
        return outputs[output]
    if isinstance(outputs, list) and output.isdigit() and int(output) < len(outputs):
        return outputs[int(output)]
    names = output_names(outputs)
    raise SpecError("/output", f"there is no output {output!r}; there are: {', '.join(names)}")


def _collected(outputs: Any, look_up: Callable[[str], Any]) -> Any:
    """The outputs' tensors in their structure."""
    if isinstance(outputs, str) and outputs.startswith("%"):
        return look_up(outputs[1:])
    if isinstance(outputs, list):
        return [_collected(each, look_up) for each in outputs]
    if isinstance(outputs, Mapping):
        return {name: _collected(each, look_up) for name, each in outputs.items()}
    raise SpecError("/outputs", f"{str(outputs)[:60]} is no reference to a node")


def output_names(outputs: Any) -> list[str]:
    """Return what ``output`` can choose from."""
    if isinstance(outputs, Mapping):
        return list(outputs)
    return [str(at) for at in range(len(outputs))] if isinstance(outputs, list) else []


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
