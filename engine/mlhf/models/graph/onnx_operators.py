"""What the operators of ONNX are in torch. Shapes and other whole numbers are NumPy arrays.

So the arithmetic of shapes, which ONNX writes as nodes, is done in Python and is not traced.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Attributes(dict[str, Any]):
    """A node's attributes."""


Operator = Callable[..., Any]
_DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32,
    7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


def _tensor(value: Any, like: Tensor | None = None) -> Tensor:
    if isinstance(value, Tensor):
        return value
    found = torch.tensor(np.asarray(value).tolist())
    return found.to(like.dtype) if like is not None and like.is_floating_point() else found


def _numbers(value: Any) -> list[int]:
    if isinstance(value, Tensor):
        raise ValueError("numbers that are computed from the inputs")
    return [int(v) for v in np.asarray(value).reshape(-1)]


def _number(value: Any) -> Any:
    """A single number as Python's; anything else as it is."""
    if isinstance(value, np.ndarray) and value.size == 1:
        return value.reshape(()).item()
    return _tensor(value) if isinstance(value, np.ndarray) else value


def _binary(tensors: Callable[[Any, Any], Any], arrays: Callable[[Any, Any], Any]) -> Operator:
    def call(a: Attributes, n: int, x: Any, y: Any) -> Any:
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return np.asarray(arrays(x, y))
        if isinstance(x, np.ndarray):
            x = _tensor(x, y)
        return tensors(x, _number(y) if x.ndim or not isinstance(y, np.ndarray) else _tensor(y, x))

    return call


def _divide(x: Any, y: Any) -> Any:
    whole = all(not isinstance(v, Tensor) or not v.is_floating_point() for v in (x, y))
    if whole and not isinstance(y, float):
        return torch.div(x, y, rounding_mode="trunc")
    return x / y


def _unary(tensors: Callable[[Tensor], Tensor]) -> Operator:
    return lambda a, n, x: tensors(_tensor(x))


def _reduce(call: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def reduce(a: Attributes, n: int, x: Tensor, axes: Any = None) -> Tensor:
        given = a.get("axes") if axes is None else _numbers(axes)
        if not given:
            if a.get("noop_with_empty_axes"):
                return x
            given = list(range(x.ndim))
        return call(x, list(given), bool(a.get("keepdims", 1)))

    return reduce


def _reshape(a: Attributes, n: int, x: Any, shape: Any) -> Any:
    sizes = _numbers(shape)
    if isinstance(x, np.ndarray):
        return x.reshape(sizes)
    kept = bool(a.get("allowzero"))
    return x.reshape([x.shape[i] if s == 0 and not kept else s for i, s in enumerate(sizes)])


def _slice(a: Attributes, n: int, x: Any, *given: Any) -> Any:
    if given:
        starts, ends = _numbers(given[0]), _numbers(given[1])
        axes = _numbers(given[2]) if len(given) > 2 and given[2] is not None else None
        steps = _numbers(given[3]) if len(given) > 3 and given[3] is not None else None
    else:
        starts, ends, axes, steps = list(a["starts"]), list(a["ends"]), a.get("axes"), None
    index = [slice(None)] * x.ndim
    reversed_axes = []
    for at, axis in enumerate(axes if axes is not None else range(len(starts))):
        size, step = x.shape[axis], 1 if steps is None else steps[at]
        start, stop = starts[at], ends[at]
        if step < 0:
            if step != -1 or start % size != size - 1 or stop > -size:
                raise ValueError("a step below 0 over a part of an axis")
            reversed_axes.append(axis)
            continue
        index[axis] = slice(max(-size, start), min(size, max(-size, stop)), step)
    found = x[tuple(index)]
    return found.flip(reversed_axes) if reversed_axes else found


def _gather(a: Attributes, n: int, x: Any, index: Any) -> Any:
    axis = a.get("axis", 0)
    if isinstance(x, np.ndarray) and isinstance(index, np.ndarray):
        return np.take(x, index, axis)
    if isinstance(index, np.ndarray) and index.ndim == 0:
        return x.select(axis, int(index))
    index = _tensor(index)
    if axis == 0 and x.ndim == 2:
        return F.embedding(index, x)
    flat = x.index_select(axis, index.reshape(-1))
    axis %= x.ndim
    return flat.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _concat(a: Attributes, n: int, *parts: Any) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts, a["axis"])
    return torch.cat([_tensor(part) for part in parts], a["axis"])


def _squeeze(a: Attributes, n: int, x: Any, axes: Any = None) -> Any:
    given = a.get("axes") if axes is None else _numbers(axes)
    if given is None:
        return x.squeeze()
    return x.squeeze(tuple(given))


def _unsqueeze(a: Attributes, n: int, x: Any, axes: Any = None) -> Any:
    given = sorted(a["axes"] if axes is None else _numbers(axes))
    for axis in given:
        x = np.expand_dims(x, axis) if isinstance(x, np.ndarray) else x.unsqueeze(axis)
    return x


def _split(a: Attributes, n: int, x: Tensor, sizes: Any = None) -> Any:
    axis = a.get("axis", 0)
    given = a.get("split") if sizes is None else _numbers(sizes)
    if given is None:
        given = [-(-x.shape[axis] // n)] * n
        given[-1] = x.shape[axis] - sum(given[:-1])
    return tuple(torch.split(x, list(given), axis))


def _cast(a: Attributes, n: int, x: Any) -> Any:
    kind = _DTYPES[a["to"]]
    if isinstance(x, np.ndarray):
        return x.astype(str(kind)[6:]) if kind != torch.bfloat16 else x
    return x.to(kind)


def _clip(a: Attributes, n: int, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low = a.get("min") if low is None else _number(low)
    high = a.get("max") if high is None else _number(high)
    return x.clamp(low, high)


def _spatial(a: Attributes, x: Tensor) -> tuple[list[int], list[int], Tensor]:
    """Kernel, stride, and the input padded where its padding is not the same at both ends."""
    if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ValueError("auto_pad")
    kernel = list(a["kernel_shape"])
    return kernel, list(a.get("strides", [1] * len(kernel))), x


def _padding(a: Attributes, count: int) -> list[int]:
    pads = list(a.get("pads", [0] * 2 * count))
    if pads[:count] != pads[count:]:
        raise ValueError("padding that differs at both ends")
    return pads[:count]


def _max_pool(a: Attributes, n: int, x: Tensor) -> Tensor:
    kernel, stride, x = _spatial(a, x)
    call = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    found: Tensor = call(
        x,
        kernel,
        stride,
        _padding(a, len(kernel)),
        list(a.get("dilations", [1] * len(kernel))),
        bool(a.get("ceil_mode", 0)),
    )
    return found


def _avg_pool(a: Attributes, n: int, x: Tensor) -> Tensor:
    kernel, stride, x = _spatial(a, x)
    call = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    counted = bool(a.get("count_include_pad", 0))
    found: Tensor = call(
        x, kernel, stride, _padding(a, len(kernel)), bool(a.get("ceil_mode", 0)), counted
    )
    return found


def _pad(a: Attributes, n: int, x: Tensor, pads: Any = None, value: Any = None, *_: Any) -> Tensor:
    given = _numbers(pads) if pads is not None else list(a["pads"])
    count = len(given) // 2
    pairs = [side for axis in reversed(range(count)) for side in (given[axis], given[axis + count])]
    mode = {"edge": "replicate"}.get(a.get("mode", "constant"), a.get("mode", "constant"))
    if mode == "constant":
        return F.pad(x, pairs, value=0.0 if value is None else float(_number(value)))
    return F.pad(x, pairs[: 2 * (x.ndim - 2)], mode=mode)


def _resize(a: Attributes, n: int, x: Tensor, *given: Any) -> Tensor:
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[
        a.get("mode", "nearest")
    ]
    sizes = given[2] if len(given) > 2 else None
    how = a.get("coordinate_transformation_mode", "half_pixel")
    aligned = how == "align_corners" if mode != "nearest" else None
    if how not in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        raise ValueError(how)
    if sizes is not None and np.asarray(sizes).size:
        return F.interpolate(x, size=_numbers(sizes)[2:], mode=mode, align_corners=aligned)
    scales = [float(v) for v in np.asarray(given[1] if len(given) > 1 else given[0])][2:]
    return F.interpolate(x, scale_factor=scales, mode=mode, align_corners=aligned)


def _layer_norm(a: Attributes, n: int, x: Tensor, scale: Tensor, bias: Any = None) -> Tensor:
    axis = a.get("axis", -1) % x.ndim
    return F.layer_norm(x, x.shape[axis:], scale, bias, a.get("epsilon", 1e-5))


def _gemm(a: Attributes, n: int, x: Tensor, y: Tensor, z: Any = None) -> Tensor:
    x = x.t() if a.get("transA") else x
    y = y.t() if a.get("transB") else y
    found = a.get("alpha", 1.0) * (x @ y)
    result: Tensor = found if z is None else found + a.get("beta", 1.0) * _tensor(z, x)
    return result


def _expand(a: Attributes, n: int, x: Any, shape: Any) -> Any:
    x = _tensor(x)
    sizes = np.broadcast_shapes(tuple(x.shape), tuple(_numbers(shape)))
    return x.expand(sizes)


def _shape(a: Attributes, n: int, x: Any) -> Any:
    sizes = np.array(x.shape, dtype=np.int64)
    return sizes[a.get("start", 0) : a.get("end")]


def _filled(a: Attributes, n: int, shape: Any) -> Any:
    value = np.asarray(a.get("value", np.zeros(1, np.float32))).reshape(-1)[0]
    if value.dtype.kind in "iu":
        return np.full(_numbers(shape), value)
    return torch.full(_numbers(shape), value.item())


def _constant(a: Attributes, n: int) -> Any:
    (value,) = a.values()
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.size > 1:
        return torch.tensor(array.tolist(), dtype=torch.float32)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _range(a: Attributes, n: int, start: Any, stop: Any, step: Any) -> Any:
    return np.arange(*(np.asarray(v).item() for v in (start, stop, step)))


def _where(a: Attributes, n: int, condition: Any, x: Any, y: Any) -> Any:
    if all(isinstance(v, np.ndarray) for v in (condition, x, y)):
        return np.where(condition, x, y)
    like = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else None
    return torch.where(_tensor(condition), _tensor(x, like), _tensor(y, like))


def _dropout(a: Attributes, n: int, x: Tensor, *_: Any) -> Any:
    return (x, torch.ones_like(x, dtype=torch.bool)) if n > 1 else x


def _transpose(a: Attributes, n: int, x: Tensor) -> Tensor:
    return x.permute(list(a.get("perm", reversed(range(x.ndim)))))


def _flatten(a: Attributes, n: int, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    if axis != 1:
        raise ValueError("flatten about another axis than 1")
    return x.flatten(1)


OPERATORS: dict[str, Operator] = {
    "Add": _binary(lambda x, y: x + y, lambda x, y: x + y),
    "Sub": _binary(lambda x, y: x - y, lambda x, y: x - y),
    "Mul": _binary(lambda x, y: x * y, lambda x, y: x * y),
    "Div": _binary(_divide, lambda x, y: x // y if x.dtype.kind == "i" else x / y),
    "Pow": _binary(lambda x, y: x**y, lambda x, y: x**y),
    "Equal": _binary(lambda x, y: x == y, lambda x, y: x == y),
    "Less": _binary(lambda x, y: x < y, lambda x, y: x < y),
    "Greater": _binary(lambda x, y: x > y, lambda x, y: x > y),
    "LessOrEqual": _binary(lambda x, y: x <= y, lambda x, y: x <= y),
    "GreaterOrEqual": _binary(lambda x, y: x >= y, lambda x, y: x >= y),
    "And": _binary(torch.logical_and, np.logical_and),
    "Or": _binary(torch.logical_or, np.logical_or),
    "Max": _binary(lambda x, y: torch.maximum(x, _tensor(y, x)), np.maximum),
    "Min": _binary(lambda x, y: torch.minimum(x, _tensor(y, x)), np.minimum),
    "MatMul": lambda a, n, x, y: _tensor(x) @ _tensor(y),
    "Gemm": _gemm,
    "Not": _unary(torch.logical_not),
    "Neg": lambda a, n, x: -x,
    "Abs": lambda a, n, x: abs(x),
    "Sqrt": lambda a, n, x: np.sqrt(x) if isinstance(x, np.ndarray) else torch.sqrt(x),
    "Reciprocal": _unary(torch.reciprocal),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "Erf": _unary(torch.erf),
    "Floor": _unary(torch.floor),
    "Ceil": _unary(torch.ceil),
    "Round": _unary(torch.round),
    "Sign": _unary(torch.sign),
    "Relu": _unary(F.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Tanh": _unary(torch.tanh),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Mish": _unary(F.mish),
    "HardSwish": _unary(F.hardswish),
    "HardSigmoid": lambda a, n, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "LeakyRelu": lambda a, n, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Elu": lambda a, n, x: F.elu(x, a.get("alpha", 1.0)),
    "Selu": _unary(F.selu),
    "Gelu": lambda a, n, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "PRelu": lambda a, n, x, w: torch.where(x >= 0, x, w * x),
    "Softmax": lambda a, n, x: torch.softmax(x, a.get("axis", -1)),
    "LogSoftmax": lambda a, n, x: torch.log_softmax(x, a.get("axis", -1)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": lambda a, n, x, times: x.repeat(_numbers(times)),
    "Where": _where,
    "Cast": _cast,
    "Clip": _clip,
    "Pad": _pad,
    "Resize": _resize,
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": lambda a, n, x: x.mean(list(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda a, n, x: x.amax(list(range(2, x.ndim)), keepdim=True),
    "LayerNormalization": _layer_norm,
    "Shape": _shape,
    "ConstantOfShape": _filled,
    "Constant": _constant,
    "Range": _range,
    "Identity": lambda a, n, x: x,
    "Dropout": _dropout,
    "Einsum": lambda a, n, *xs: torch.einsum(a["equation"], *xs),
}
