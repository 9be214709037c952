"""Shapes and sizes of layers by arithmetic: nothing is allocated, no torch is imported.

A shape is that of one sample: (C, H, W) an image, (T, F) a sequence, (F,) a vector, and (T,)
with ``tokens`` set a text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models import layer_specs as spec

MAX_LAYERS = 200
MAX_DEPTH = 8


@dataclass(frozen=True)
class Shape:
    """Shape of one sample at some point of a network."""

    sizes: tuple[int, ...]
    tokens: bool = False

    def __str__(self) -> str:
        what = {1: "vector", 2: "sequence", 3: "image"}[len(self.sizes)]
        return f"{'text' if self.tokens else what} of shape {self.sizes}"


@dataclass(frozen=True)
class Planned:
    """A layer with what shape inference found out about it.

    Attributes:
        parameters: Number of trainable values, those of inner layers and of a projection
            included.
        activations: Floats per sample that the layer hands on, an estimate of what the
            backward pass keeps.
        inner: The layers of a residual block.
        projection: Stride of a residual block's projection; None for the identity.
    """

    layer: spec.Layer
    source: Shape
    result: Shape
    parameters: int
    activations: int
    inner: tuple["Planned", ...] = ()
    projection: int | None = None

    @property
    def normalized_over(self) -> int | None:
        """How few values of a sample batch norm takes a channel's mean over; None without it."""
        if isinstance(self.layer, spec.BatchNorm):
            return prod(self.source.sizes[1:])
        return fewest(p.normalized_over for p in self.inner)

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of its weight matrices; of a kernel, outputs and values of a window."""
        source, result = self.source.sizes, self.result.sizes
        match self.layer:
            case spec.Linear():
                return ((result[-1], source[-1]),)
            case spec.Conv2d(kernel_size=kernel, groups=groups):
                return ((result[0], source[0] // groups * kernel**2),)
            case spec.CausalConv1d(kernel_size=kernel):
                return ((result[1], source[1] * kernel),)
            case spec.Lstm() | spec.Gru() as layer:
                gates = (4 if isinstance(layer, spec.Lstm) else 3) * layer.hidden_size
                inner = ((gates, layer.hidden_size),) * (2 * layer.num_layers - 1)
                return ((gates, source[1]), *inner)
            case spec.CausalAttention():
                return ((3 * source[1], source[1]), (source[1], source[1]))
            case _:
                return tuple(matrix for planned in self.inner for matrix in planned.matrices)

    @property
    def depth(self) -> int:
        """Number of layers with weight matrices on the longest way through."""
        if isinstance(self.layer, spec.Lstm | spec.Gru):
            return self.layer.num_layers
        if isinstance(self.layer, spec.CausalAttention):
            return 2  # queries, keys and values at once, then what mixes the heads
        weighted = spec.Linear | spec.Conv2d | spec.CausalConv1d | spec.Embedding
        return sum(p.depth for p in self.inner) + isinstance(self.layer, weighted)


def fewest(counts: Iterable[int | None]) -> int | None:
    """Return the smallest number of those that are there."""
    return min((count for count in counts if count is not None), default=None)


def input_shape(data: DataInfo) -> Shape:
    """Return the shape a network is fed with."""
    return Shape(data.input_shape, tokens=data.kind == "text")


def output_sizes(data: DataInfo) -> tuple[int, ...]:
    """Return the shape a network has to end with."""
    positions = data.target_positions
    return (data.outputs, *positions) if data.kind == "image" else (*positions, data.outputs)


def head_sizes(data: DataInfo, name: str) -> tuple[int, ...]:
    """Return the shape that the outputs of one of several heads have."""
    head = data.heads[name]
    images = data.kind == "image"
    return (head.outputs, *head.positions) if images else (*head.positions, head.outputs)


def plan(layers: list[spec.Layer], data: DataInfo, pointer: str) -> tuple[Planned, ...]:
    """Infer all shapes of a network, and check that it ends with the data's outputs.

    Args:
        pointer: JSON pointer of ``layers``, for errors.

    Raises:
        SpecError: A layer cannot take what it is given; the pointer leads to it.
    """
    _check_count(layers, pointer)
    planned = _chain(layers, input_shape(data), data, pointer)
    last, wanted = planned[-1].result, output_sizes(data)
    if last.tokens or last.sizes != wanted:
        raise SpecError(
            f"{pointer}/{len(layers) - 1}",
            f"the last layer gives: {last}, but the data needs outputs of shape {wanted}",
        )
    return planned


def _check_count(layers: list[spec.Layer], pointer: str) -> None:
    """Bound the number and nesting of layers without recursion."""
    level, total = [(layer, f"{pointer}/{i}") for i, layer in enumerate(layers)], 0
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        total += len(level)
        if total > MAX_LAYERS:
            raise SpecError(pointer, f"more than {MAX_LAYERS} layers")
        level = [
            (inner, f"{where}/layers/{i}")
            for layer, where in level
            if isinstance(layer, spec.Residual)
            for i, inner in enumerate(layer.layers)
        ]
    if level:
        raise SpecError(level[0][1], f"residual blocks nested deeper than {MAX_DEPTH}")


def _chain(
    layers: list[spec.Layer], source: Shape, data: DataInfo, pointer: str
) -> tuple[Planned, ...]:
    planned = []
    for index, layer in enumerate(layers):
        planned.append(_plan_layer(layer, source, data, f"{pointer}/{index}"))
        source = planned[-1].result
    return tuple(planned)


def _plan_layer(layer: spec.Layer, source: Shape, data: DataInfo, pointer: str) -> Planned:
    if isinstance(layer, spec.Residual):
        return _residual(layer, source, data, pointer)
    sizes, parameters = _infer(layer, source, data, pointer)
    if isinstance(layer, spec.CausalAttention):
        return Planned(layer, source, Shape(sizes), parameters, _attended(layer, sizes))
    steps = layer.num_layers if isinstance(layer, spec.Lstm | spec.Gru) else 1
    gates = {"lstm": 6, "gru": 4}.get(layer.type, 1)
    return Planned(layer, source, Shape(sizes), parameters, prod(sizes) * steps * gates)


def _infer(
    layer: spec.Layer, source: Shape, data: DataInfo, pointer: str
) -> tuple[tuple[int, ...], int]:
    """Return the shape after a layer, and its number of parameters."""
    need = _Need(layer.type, source, pointer)
    match layer:
        case spec.Embedding():
            (steps,) = need.text()
            return (steps, layer.dimension), (data.vocabulary or 0) * layer.dimension
        case spec.Linear():
            *outer, features = need.vector_or_sequence()
            out = layer.out_features or data.outputs
            return (*outer, out), features * out + out * layer.bias
        case spec.Conv2d():
            channels, *sides = need.image()
            return _conv2d(layer, channels, sides, pointer)
        case spec.CausalConv1d():
            steps, features = need.sequence()
            out = layer.out_channels
            return (steps, out), out * (features * layer.kernel_size + layer.bias)
        case spec.MaxPool2d() | spec.AvgPool2d():
            channels, *sides = need.image()
            if layer.padding > layer.kernel_size // 2:
                raise SpecError(f"{pointer}/padding", "must be at most half of kernel_size")
            stride = layer.stride or layer.kernel_size
            return (channels, *_slide(sides, layer.kernel_size, stride, layer.padding, pointer)), 0
        case spec.GlobalAvgPool():
            return need.image()[:1], 0
        case spec.BatchNorm():
            sizes = need.vector_or_image()
            return sizes, 2 * sizes[0]
        case spec.GroupNorm():
            sizes = need.vector_or_image()
            if sizes[0] % layer.groups:
                raise SpecError(
                    f"{pointer}/groups", f"{sizes[0]} channels do not divide into {layer.groups}"
                )
            return sizes, 2 * sizes[0]
        case spec.LayerNorm():
            sizes = need.numbers()
            return sizes, 2 * (sizes[-1] if len(sizes) == 2 else prod(sizes))
        case spec.Flatten():
            return (prod(need.numbers()),), 0
        case spec.ImageRows():
            channels, height, width = need.image()
            return (height, channels * width), 0
        case spec.Lstm() | spec.Gru():
            steps, features = need.sequence()
            return (steps, layer.hidden_size), _recurrent(layer, features)
        case spec.PositionEmbedding():
            steps, features = need.sequence()
            return (steps, features), steps * features
        case spec.CausalAttention():
            steps, features = need.sequence()
            if features % layer.heads:
                raise SpecError(
                    f"{pointer}/heads", f"{features} features do not divide into {layer.heads}"
                )
            return (steps, features), 4 * features * (features + 1)
        case spec.LastStep() | spec.MeanOverTime():
            return need.sequence()[1:], 0
        case _:  # activation, dropout
            return need.numbers(), 0


@dataclass(frozen=True)
class _Need:
    """Raises unless the source is of a form that the layer takes."""

    layer: str
    source: Shape
    pointer: str

    def _one_of(self, axes: tuple[int, ...], what: str, tokens: bool = False) -> tuple[int, ...]:
        if len(self.source.sizes) not in axes or self.source.tokens != tokens:
            raise SpecError(self.pointer, f"{self.layer} needs {what}, but is given: {self.source}")
        return self.source.sizes

    def text(self) -> tuple[int, ...]:
        return self._one_of((1,), "a text", tokens=True)

    def image(self) -> tuple[int, ...]:
        return self._one_of((3,), "an image")

    def sequence(self) -> tuple[int, ...]:
        return self._one_of((2,), "a sequence")

    def vector_or_sequence(self) -> tuple[int, ...]:
        return self._one_of((1, 2), "a vector or a sequence (flatten an image first)")

    def vector_or_image(self) -> tuple[int, ...]:
        return self._one_of((1, 3), "a vector or an image")

    def numbers(self) -> tuple[int, ...]:
        return self._one_of((1, 2, 3), "numbers (embed a text first)")


def _slide(sides: list[int], kernel: int, stride: int, padding: int, pointer: str) -> list[int]:
    """Return the sides after a window slid over them."""
    if kernel > min(sides) + 2 * padding:
        raise SpecError(
            f"{pointer}/kernel_size",
            f"{kernel} is larger than the image of {sides[0]}x{sides[1]} with its padding",
        )
    return [(side + 2 * padding - kernel) // stride + 1 for side in sides]


def _conv2d(
    layer: spec.Conv2d, channels: int, sides: list[int], pointer: str
) -> tuple[tuple[int, ...], int]:
    for count in (channels, layer.out_channels):
        if count % layer.groups:
            raise SpecError(
                f"{pointer}/groups", f"{count} channels do not divide into {layer.groups} groups"
            )
    kernel = layer.kernel_size
    sides = _slide(sides, kernel, layer.stride, layer.padding, pointer)
    weights = layer.out_channels * (channels // layer.groups) * kernel**2
    return (layer.out_channels, *sides), weights + layer.out_channels * layer.bias


def _recurrent(layer: spec.Lstm | spec.Gru, features: int) -> int:
    """Count the parameters: one matrix for inputs, one for the state, and two biases a gate."""
    gates, hidden, total = 4 if isinstance(layer, spec.Lstm) else 3, layer.hidden_size, 0
    for _ in range(layer.num_layers):
        total += gates * hidden * (features + hidden + 2)
        features = hidden
    return total


def _attended(layer: spec.CausalAttention, sizes: tuple[int, ...]) -> int:
    """Count what is kept: queries, keys, values, both sums, and each head's weights twice."""
    steps, features = sizes
    return 5 * steps * features + 2 * layer.heads * steps**2


def _residual(layer: spec.Residual, source: Shape, data: DataInfo, pointer: str) -> Planned:
    if source.tokens:
        raise SpecError(pointer, "residual needs numbers (embed a text first)")
    inner = _chain(layer.layers, source, data, f"{pointer}/layers")
    result = inner[-1].result
    activations = sum(p.activations for p in inner) + prod(result.sizes)
    parameters = sum(p.parameters for p in inner)
    projection = None
    if layer.shortcut == "projection" or (layer.shortcut == "auto" and source != result):
        projection = _projection_stride(source.sizes, result.sizes, pointer)
        channel = 0 if len(source.sizes) == 3 else -1
        parameters += source.sizes[channel] * result.sizes[channel]
        activations += prod(result.sizes)
    elif source != result:
        raise SpecError(
            f"{pointer}/shortcut",
            f"identity needs equal shapes, but the layers turn the {source} into a {result}",
        )
    return Planned(layer, source, result, parameters, activations, inner, projection)


def _projection_stride(source: tuple[int, ...], result: tuple[int, ...], pointer: str) -> int:
    """Return the stride of the 1x1 convolution (or 1 for a linear map) between two shapes."""
    if len(source) == len(result):
        if len(source) < 3:
            if source[:-1] == result[:-1]:
                return 1
        else:
            for stride in range(1, max(source[1:]) + 1):
                if tuple((side - 1) // stride + 1 for side in source[1:]) == result[1:]:
                    return stride
    raise SpecError(
        pointer, f"no projection leads from {source} to {result}; end the block with equal axes"
    )
