"""Records what a module computes: one run of its forward on real inputs, as nodes of a graph.

Python runs as it always does, so that loops and branches on shapes, settings and the mode are
followed; every function of torch and every layer that is called is written down. A branch on a
value that was computed from the inputs is not: it would be taken for all inputs alike.
"""

import math
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode, resolve_name

from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.operations import operations_by_callable
from mlhf.models.graph.table import PART, RANDOM

Json = Any
_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)

# They say something of a tensor's values in Python.
_VALUES = {
    "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__",
    "__array__", "__complex__", "equal", "allclose", "is_nonzero", "__format__", "__repr__",
}  # fmt: skip
_SHAPED_BY_VALUES = {
    "nonzero": "torch.where(condition, a, b) or multiply by a mask",
    "masked_select": "torch.where(mask, x, 0) or multiply by the mask",
    "unique": "an operation whose shape does not depend on values",
    "bincount": "functional.one_hot(x, classes).sum(0)",
    "masked_scatter": "torch.where",
    "masked_scatter_": "torch.where",
}
# Of no meaning for what is computed.
_LEFT_OUT = {"device", "memory_format", "layout", "pin_memory", "non_blocking", "out", "generator"}
_LEFT_OUT |= {"requires_grad", "_stacklevel"}
_NO_TENSORS = {
    "size", "dim", "numel", "nelement", "ndimension", "stride", "storage_offset", "is_contiguous",
    "is_floating_point", "is_complex", "element_size", "get_device", "__len__", "__hash__",
    "is_set_to", "requires_grad_", "retain_grad", "is_signed", "broadcast_shapes", "result_type",
    "can_cast", "is_tensor", "is_same_size", "has_names", "data_ptr", "is_inference", "is_neg",
    "is_conj",
    "promote_types", "register_hook", "is_shared", "untyped_storage", "get_default_dtype",
    "is_pinned", "__dir__", "is_storage", "is_grad_enabled", "finfo", "iinfo",
    "is_autocast_enabled", "set_default_device", "get_default_device", "is_autocast_cpu_enabled",
    "__get__", "__set__",
}  # fmt: skip
_METADATA = {
    "shape", "dtype", "device", "ndim", "requires_grad", "is_leaf", "grad_fn", "layout", "is_cuda",
    "is_sparse", "is_quantized", "is_meta", "is_nested", "names", "itemsize", "nbytes", "grad",
    "is_mkldnn", "is_xpu", "is_mps", "is_cpu", "is_vulkan", "is_xla", "is_ipu", "is_maia",
    "is_sparse_csr", "_backward_hooks", "_version", "output_nr", "_base", "is_mtia",
}  # fmt: skip


class Recorder(TorchFunctionMode):
    """One run's record. Use it as a context around the call.

    Args:
        tensors: Parameters and buffers by their names.
        layers: Names of the modules that are recorded as layers, by the module.
        inputs: The inputs by their names.

    Attributes:
        nodes: JSON of the nodes.
        constants: Tensors that came from elsewhere, by their names.
        lines: Where in the user's code each node was computed.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        layers: Mapping[nn.Module, str],
        inputs: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.nodes: list[dict[str, Json]] = []
        self.lines: list[str] = []
        self.constants: dict[str, Tensor] = {}
        self._layers = layers
        self._kept: list[Tensor] = []  # so that no id is used twice
        self._names: dict[int, str] = {}
        self._computed: set[int] = set()
        self._counts: dict[str, int] = {}
        self._taken = {*tensors, *inputs}
        for name, tensor in tensors.items():
            self._name(tensor, name, computed=True)
        for name, tensor in inputs.items():
            self._name(tensor, name, computed=True)
        self._paused = False

    def __enter__(self) -> "Recorder":
        recorder, original = self, nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return recorder._layer_call(original, module, args, kwargs)

        self._original = original
        # Libraries ask for these before they look at values, as for warnings.
        self._flags = torch.compiler._is_compiling_flag, torch.compiler._is_exporting_flag
        torch.compiler._is_compiling_flag = torch.compiler._is_exporting_flag = True
        nn.Module.__call__ = call  # type: ignore[method-assign]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        torch.compiler._is_compiling_flag, torch.compiler._is_exporting_flag = self._flags
        nn.Module.__call__ = self._original  # type: ignore[method-assign]
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        if func is Tensor.__iter__:
            return iter(self.__torch_function__(Tensor.unbind, types, args, kwargs))
        operation = operations_by_callable().get(func)
        name = getattr(func, "__name__", str(func))
        if operation is None:
            return self._outside(func, name, args, kwargs)
        if operation == "torch.as_tensor" and any(map(self._is_known, args)):
            return func(*args, **kwargs)
        if operation == "tensor.__getitem__" and any(
            each.dtype in (torch.bool, torch.uint8) and id(each) in self._computed
            for each in _tensors(args[1:])
        ):
            raise self._refused(
                "a mask as an index, whose result's shape depends on values",
                "torch.where(mask, x, 0), or multiply by the mask",
            )
        before = _tensors([args, kwargs])
        recorded = self._encode_call(operation, args, kwargs)
        result = func(*args, **kwargs)
        computed = operation in RANDOM or any(id(each) in self._computed for each in before)
        self._add({"op": operation, **recorded}, operation, result, computed)
        return result

    def _outside(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call what is in no graph: it says something of a tensor, or is refused."""
        owner = getattr(getattr(func, "__self__", None), "__name__", None)
        if name in _VALUES:
            if any(id(each) in self._computed for each in _tensors([args, kwargs])):
                raise self._refused(
                    f"{name.strip('_')}() of a tensor that was computed from the inputs or the "
                    "parameters",
                    "torch.where(condition, a, b) in place of a branch on a value, or compute it "
                    "from shapes and settings alone",
                )
            return func(*args, **kwargs)
        if name in _NO_TENSORS and (name not in ("__get__", "__set__") or owner in _METADATA):
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        made = list(_tensors(result))
        if not made or all(self._is_known(each) for each in made):
            return result
        told = _name_of(func)
        if not any(id(each) in self._computed for each in _tensors([args, kwargs])):
            return result  # a constant, kept as its value where it is used
        if name in _SHAPED_BY_VALUES:
            raise self._refused(
                f"{told}, whose result's shape depends on values", _SHAPED_BY_VALUES[name]
            )
        raise self._refused(
            f"{told}, which graphs do not have",
            "the same by operations that they have (docs/networks.md lists them)",
        )

    def _layer_call(
        self,
        original: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self._paused or module not in self._layers:
            return original(module, *args, **kwargs)
        name = self._layers[module]
        recorded = self._encode_call(name, args, kwargs)
        self._paused = True
        try:
            result = original(module, *args, **kwargs)
        finally:
            self._paused = False
        self._add({"layer": name, **recorded}, name.replace(".", "_"), result, True)
        return result

    def _encode_call(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Json]:
        index = name in ("tensor.__getitem__", "tensor.__setitem__")
        recorded: dict[str, Json] = {}
        given = [
            self.encode(each, index)
            for each in args
            if not isinstance(each, torch.device | torch.memory_format)
        ]
        named = {
            key: self.encode(value)
            for key, value in kwargs.items()
            if key not in _LEFT_OUT and not isinstance(value, torch.device)
        }
        if given:
            recorded["args"] = given
        if named:
            recorded["kwargs"] = named
        return recorded

    def encode(self, value: Any, index: bool = False) -> Json:
        """Return a value as JSON; tensors become references."""
        if isinstance(value, Tensor):
            return "%" + self._reference(value)
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, str) and not value.startswith("%"):
            return value
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, slice):
            return {"slice": [self.encode(v) for v in (value.start, value.stop, value.step)]}
        if value is Ellipsis:
            return {"ellipsis": True}
        if isinstance(value, tuple) and index:
            return {"tuple": [self.encode(each, index) for each in value]}
        if isinstance(value, list | tuple):
            return [self.encode(each) for each in value]
        if type(value).__module__ == "numpy" and hasattr(value, "item"):
            return self.encode(value.item())
        raise self._refused(
            f"an argument of type {type(value).__name__}", "numbers, tensors and their lists"
        )

    def _reference(self, tensor: Tensor) -> str:
        if isinstance(tensor.grad_fn, BackwardCFunction):
            raise self._refused(
                "an autograd.Function, whose backward would be lost",
                "the same by functions of torch",
            )
        if id(tensor) in self._names:
            return self._names[id(tensor)]
        if tensor.requires_grad or tensor.grad_fn is not None:
            raise self._refused(
                "a tensor that was computed where it cannot be followed (a compiled function, or "
                "outside of the module)",
                "the same by functions of torch, or register it as a parameter",
            )
        name = self._new_name("constant")
        self.constants[name] = tensor.detach().clone()
        self._name(tensor, name, computed=False)
        return name

    def _is_known(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._names

    def _add(self, node: dict[str, Json], word: str, result: Any, computed: bool) -> None:
        name = self._new_name(word.rpartition(".")[2].strip("_") or "node")
        self.nodes.append({"name": name, **node})
        self.lines.append(self._line())
        self._bind(result, name, computed)

    def _bind(self, result: Any, name: str, computed: bool) -> None:
        """Name a result; parts of a tuple get nodes of their own that take them out."""
        if isinstance(result, Tensor):
            self._name(result, name, computed)
        elif isinstance(result, tuple | list):
            for at, part in enumerate(result):
                if part is None:
                    continue
                inner = self._new_name(f"{name}_part{at}")
                self._part(name, at, inner)
                self._bind(part, inner, computed)

    def _part(self, name: str, at: int, inner: str) -> None:
        self.nodes.append({"name": inner, "op": PART, "args": ["%" + name, at]})
        self.lines.append(self.lines[-1])

    def _name(self, tensor: Tensor, name: str, computed: bool) -> None:
        self._kept.append(tensor)
        self._names[id(tensor)] = name
        if computed:
            self._computed.add(id(tensor))

    def _new_name(self, word: str) -> str:
        while True:
            self._counts[word] = count = self._counts.get(word, 0) + 1
            name = word if count == 1 else f"{word}_{count}"
            if name not in self._taken:
                return name

    def _refused(self, what: str, instead: str) -> TraceError:
        return TraceError(what, self._line(), instead)

    def _line(self) -> str:
        for frame in reversed(traceback.extract_stack(limit=40)):
            if not frame.filename.startswith((_TORCH, _HERE)):
                return f"{frame.filename}:{frame.lineno}: {frame.line}"
        return "?"


def _name_of(func: Callable[..., Any]) -> str:
    try:
        return resolve_name(func) or str(getattr(func, "__name__", func))
    except (TypeError, AttributeError):
        return str(getattr(func, "__name__", func))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [each for item in value for each in _tensors(item)]
    if isinstance(value, Mapping):
        return [each for item in value.values() for each in _tensors(item)]
    return []
