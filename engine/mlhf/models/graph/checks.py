"""Checks a graph before anything is allocated: it is run on tensors that have no memory."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mlhf.core.errors import SpecError
from mlhf.models.graph.layers import MAX_STACKED
from mlhf.models.graph.module import GraphModule
from mlhf.models.graph.sizes import GraphSizes, Output
from mlhf.models.graph.spec import Graph, references
from mlhf.models.graph.values import decode_tensor, dtype_of

_SIZES = (2, 3)
_MOST_VALUES = 2**36  # of one tensor, and of all parameters
_MOST_BUFFERS = 2**26
_MOST_PIECES = 4096
_MOST_NUMBER = 2**40
_BATCH_NORMS = ("functional.batch_norm", "torch.batch_norm")
_FLOAT_BYTES = 4
_SHORT = (2, 4)  # steps that a recurrent layer is run for, in place of a sequence's


def examine(graph: Graph) -> GraphSizes:
    """Return a graph's sizes, having run it once in each mode without memory.

    Raises:
        SpecError: it cannot be built or run; the pointer is into the graph.
    """
    _check_sizes(graph)
    _check_buffers(graph)
    with torch.device("meta"):
        module = _Checked(graph)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters()) - trained
    if trained + frozen > _MOST_VALUES:
        raise SpecError("/layers", f"{trained + frozen:,} parameters are too many")
    slopes, constants = [], []
    outputs: dict[str, Output] = {}
    for training in (True, False):
        module.train(training)
        bytes_ = []
        shaped = []
        for size in _SIZES:
            counted, result = _run(module, graph, size)
            bytes_.append(counted)
            shaped.append(result)
        slope = bytes_[1] - bytes_[0]
        slopes.append(slope)
        constants.append(max(0, bytes_[0] - _SIZES[0] * slope))
        in_training, outputs = outputs, _of_one_sample(*shaped)
    _check_training_outputs(in_training, outputs)
    return GraphSizes(
        inputs=graph.inputs,
        outputs=outputs,
        parameters=trained,
        frozen=frozen,
        activations=math.ceil(max(0, *slopes) / _FLOAT_BYTES),
        constants=math.ceil(max(constants) / _FLOAT_BYTES),
        depth=_depth(graph, module),
        normalized_over=module.normalized_over,
        matrices=[
            (p.shape[0], p.numel() // max(1, p.shape[0]))
            for p in module.parameters()
            if p.ndim > 1 and p.requires_grad
        ],
    )


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._kept: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for each in pytree.tree_leaves((args, kwargs)):
            if isinstance(each, Tensor):
                self._seen(each, counts=False)
        result = func(*args, **(kwargs or {}))
        for each in pytree.tree_leaves(result):
            if isinstance(each, Tensor):
                self._seen(each, counts=True)
        return result

    def _seen(self, tensor: Tensor, counts: bool) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._kept:
            self._kept[storage._cdata] = storage
            if counts:
                self.bytes += storage.nbytes()
            if tensor.numel() > _MOST_VALUES:
                raise SpecError("", f"a tensor of {tensor.numel():,} values is too large")


class _Checked(GraphModule):
    """A graph's module that says which node fails, and measures what batch norm averages."""

    normalized_over: int | None = None
    memory: "_Memory | None" = None

    def _called(self, step: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        place = "training_nodes" if step in self._training_only() else "nodes"
        try:
            _check_pieces(step.node.op, args, kwargs)
            self._note_batch_norm(step, args, kwargs)
            if isinstance(step.call, nn.RNNBase) and args and isinstance(args[0], Tensor):
                return self._over_time(step, args, kwargs)
            return super()._called(step, args, kwargs)
        except SpecError as error:
            raise error.under(f"/{place}/{step.at}") from None
        except Exception as error:  # whatever torch or Python says of wrong arguments
            what = step.node.op or f"layer {step.node.layer}"
            told = " ".join(str(error).split())[:300] or type(error).__name__
            raise SpecError(f"/{place}/{step.at}", f"{what} does not take these: {told}") from None

    def _over_time(self, step: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run a recurrent layer for a few steps: without memory each step costs the same again."""
        x, memory = args[0], self.memory
        axis = 1 if step.call.batch_first and x.ndim == 3 else 0
        if memory is None or x.ndim not in (2, 3) or x.shape[axis] <= sum(_SHORT):
            return super()._called(step, args, kwargs)
        at = [memory.bytes]
        for steps in _SHORT:
            short = [x.narrow(axis, 0, steps), *args[1:]]
            output, *states = super()._called(step, short, kwargs)
            at.append(memory.bytes)
        shape = [*output.shape]
        shape[axis] = x.shape[axis]
        output = output.new_empty(shape)
        first, second = at[1] - at[0], at[2] - at[1]
        each = (second - first) // (_SHORT[1] - _SHORT[0])
        memory.bytes = at[0] + first + each * (x.shape[axis] - _SHORT[0])
        return (output, *states)

    def _training_only(self) -> tuple[Any, ...]:
        steps = self._training_steps
        return () if steps is self._steps or not self.training else steps

    def _note_batch_norm(self, step: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        is_layer = isinstance(step.call, nn.modules.batchnorm._BatchNorm)
        if not self.training or not (is_layer or step.node.op in _BATCH_NORMS):
            return
        x = args[0] if args else kwargs.get("input")
        if isinstance(x, Tensor) and x.ndim > 1 and x.numel():
            over = max(1, x.numel() // (x.shape[0] * x.shape[1]))
            self.normalized_over = min(over, self.normalized_over or over)


def _run(module: _Checked, graph: Graph, size: int) -> tuple[int, Any]:
    inputs = {
        each.name: torch.empty((size, *each.shape), dtype=dtype_of(each.dtype), device="meta")
        for each in graph.inputs
    }
    with torch.no_grad(), _Memory() as memory:
        module.memory = memory
        result = module(**inputs)
    return memory.bytes, result


def _of_one_sample(small: Any, large: Any) -> dict[str, Output]:
    """The outputs' shapes of one sample, from those of batches of both sizes."""
    if isinstance(small, Tensor):
        return {"": _output(small, large)}
    pairs = small.items() if isinstance(small, Mapping) else enumerate(small)
    return {
        str(name): _output(value, large[name])
        for name, value in pairs
        if isinstance(value, Tensor) and _is_batched(value, large[name])
    }


def _check_training_outputs(in_training: dict[str, Output], outputs: dict[str, Output]) -> None:
    """Refuse a network that returns something else in training mode: it could not be trained."""
    for name, output in outputs.items():
        found = in_training.get(name)
        if found is None or found.shape != output.shape:
            what = f"output {name}" if name else "only output"
            instead = "is not there" if found is None else f"has the shape {tuple(found.shape)}"
            raise SpecError(
                "/training_outputs",
                f"the {what} has the shape {tuple(output.shape)} in evaluation mode, and in "
                f"training mode it {instead}: return the same in both",
            )


def _is_batched(small: Tensor, large: Tensor) -> bool:
    return (
        small.ndim > 0
        and (small.shape[0], large.shape[0]) == _SIZES
        and small.shape[1:] == large.shape[1:]
    )


def _output(small: Tensor, large: Tensor) -> Output:
    if not _is_batched(small, large):
        raise SpecError(
            "/outputs",
            f"for {_SIZES[0]} samples the output has the shape {tuple(small.shape)}: its first "
            "axis must be the batch",
        )
    return Output(shape=list(small.shape[1:]), dtype=str(small.dtype)[6:])


def _check_sizes(graph: Graph) -> None:
    for name, layer in graph.layers.items():
        for key, value in layer.args.items():
            numbers = value if isinstance(value, list) else [value]
            for number in numbers:
                too_large = isinstance(number, int | float) and abs(number) > _MOST_NUMBER
                stacked = key == "num_layers" and isinstance(number, int) and number > MAX_STACKED
                if too_large or stacked or isinstance(number, dict | list):
                    raise SpecError(f"/layers/{name}/args/{key}", f"{str(value)[:60]} is too large")
    for name, parameter in graph.parameters.items():
        if math.prod(parameter.shape) > _MOST_VALUES:
            raise SpecError(f"/parameters/{name}/shape", "the parameter is too large")


def _check_buffers(graph: Graph) -> None:
    total = 0
    for name, buffer in graph.buffers.items():
        total += math.prod(buffer.shape)
        if total > _MOST_BUFFERS:
            raise SpecError(
                f"/buffers/{name}/shape",
                f"buffers have at most {_MOST_BUFFERS:,} values in all",
            )
        if buffer.data is None:
            if not buffer.persistent:
                raise SpecError(f"/buffers/{name}/data", "what is not persistent needs its data")
            continue
        try:
            decode_tensor(buffer.data, buffer.shape, buffer.dtype)
        except SpecError as error:
            raise error.under(f"/buffers/{name}/data") from None


def _check_pieces(op: str | None, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse to cut a tensor into more pieces than anyone needs: each is an object of Python."""
    name = (op or "").rpartition(".")[2]
    if name not in ("split", "chunk", "unbind", "tensor_split") or not args:
        return
    tensor = args[0]
    if not isinstance(tensor, Tensor) or not tensor.ndim:
        return
    second = args[1] if len(args) > 1 else next(iter(kwargs.values()), 1)
    pieces = max(tensor.shape)
    if isinstance(second, int) and name == "split" and second > 0:
        pieces = math.ceil(pieces / second)
    elif name in ("split", "chunk", "tensor_split"):
        pieces = (
            second if isinstance(second, int) else len(second) if isinstance(second, list) else 1
        )
    if pieces > _MOST_PIECES:
        raise SpecError("/args", f"{pieces:,} pieces; at most {_MOST_PIECES:,} are allowed")


def _depth(graph: Graph, module: GraphModule) -> int:
    weighted = {n for n, m in module.named_modules() if any(True for _ in m.parameters())}
    depths: dict[str, int] = {}
    for node in graph.nodes:
        used = list(references([node.args, node.kwargs]))
        own = node.layer in weighted or any(name in graph.parameters for name in used)
        depths[node.name] = max((depths.get(name, 0) for name in used), default=0) + own
    return max(depths.values(), default=0)
