"""What a graph needs, and whether it fits its data. Needs no torch."""

from collections.abc import Collection

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.losses.specs import DETECTOR_OUTPUTS
from mlhf.models.graph.spec import Input
from mlhf.models.shapes import head_sizes, output_sizes

_KINDS = {"text": ("int64", "int32")}
Outputs = str | tuple[str, ...] | None
_FLOATS = ("float32", "float64", "float16", "bfloat16")


class Output(Strict):
    """One output, of one sample."""

    shape: list[int]
    dtype: str


class GraphSizes(Strict):
    """Sizes of a graph, found on tensors without memory.

    Attributes:
        inputs: As the graph has them.
        outputs: By name or number; a single one has the name ``""``.
        parameters: Values that are trained.
        frozen: Values that are not.
        activations: Floats a sample that are computed on the way.
        constants: Floats that are computed whatever the batch.
        depth: Layers with weights on the longest way through.
        normalized_over: How few values of one sample batch norm takes a mean over, if it does.
        matrices: Rows and columns of the weight matrices.
    """

    inputs: list[Input]
    outputs: dict[str, Output]
    parameters: int
    frozen: int
    activations: int
    constants: int
    depth: int
    normalized_over: int | None
    matrices: list[tuple[int, int]]


def chosen_output(outputs: Collection[str], output: str | None) -> str | None:
    """Return the name of the output that is trained; None for the only one.

    Args:
        outputs: All names; a single output that has none is ``""``.
        output: The one that was asked for.

    Raises:
        SpecError: at ``/params/output``, where it is not there, or none is named of several.
    """
    names = ", ".join(outputs)
    if output is not None:
        if output not in outputs or output == "":
            told = f"there are: {names}" if names else "the graph has a single one; leave it out"
            raise SpecError("/params/output", f"there is no output {output!r}; {told}")
        return output
    if list(outputs) == [""]:
        return None
    if "logits" in outputs:
        return "logits"
    if len(outputs) == 1:
        return next(iter(outputs))
    raise SpecError("/params/output", f"say which of the graph's outputs is trained: {names}")


def check_fit(sizes: GraphSizes, output: str | None, data: DataInfo) -> None:
    """Check that a graph takes these data, and gives what they need.

    Raises:
        SpecError: at ``/params/network`` or ``/params/output``.
    """
    place = "/params/network"
    if len(sizes.inputs) != 1:
        names = ", ".join(each.name for each in sizes.inputs)
        raise SpecError(
            place,
            f"the network has {len(sizes.inputs)} inputs ({names}); a data set has one. Give the "
            "others a default in its forward, and trace it with the first alone.",
        )
    (given,) = sizes.inputs
    if tuple(given.shape) != data.input_shape:
        raise SpecError(
            place,
            f"the network takes samples of shape {tuple(given.shape)}; those of the data set have "
            f"{data.input_shape}. Trace it with an example of that shape.",
        )
    kinds = _KINDS.get(data.kind, _FLOATS[:1])
    if given.dtype not in kinds:
        raise SpecError(
            place,
            f"the network takes {given.dtype}; the data set gives {kinds[0]}. Trace it with an "
            "example of that dtype.",
        )
    if data.task == "detection":
        _check_detector(sizes, data)
    elif data.heads and output is None and set(data.heads) <= set(sizes.outputs):
        for name in data.heads:
            _check_output(sizes.outputs[name], f"as {name!r} ", head_sizes(data, name))
    else:
        trained = chosen_output(sizes.outputs, output)
        _check_output(sizes.outputs[trained or ""], "", output_sizes(data))
    if not sizes.parameters:
        raise SpecError(place, "the network has no parameter that is trained.")


def trained_output(outputs: Collection[str], output: str | None, data: DataInfo) -> Outputs:
    """Return which outputs a loss is of: one, those of all heads in order, or None: as they are.

    Raises:
        SpecError: as ``chosen_output``.
    """
    if data.task == "detection":
        return None
    if data.heads and output is None and set(data.heads) <= set(outputs):
        return tuple(data.heads)
    return chosen_output(outputs, output)


def _check_output(found: Output, which: str, needed: tuple[int, ...]) -> None:
    place = "/params/network"
    # A single number a sample may come without an axis of its own.
    if tuple(found.shape) != needed and not (needed == (1,) and not found.shape):
        raise SpecError(
            place,
            f"the network gives {which}{tuple(found.shape)} for a sample; the data set needs "
            f"{needed}. Give its last layer as many outputs.",
        )
    if found.dtype not in _FLOATS[:2]:
        raise SpecError(place, f"the network gives {which}{found.dtype}; a loss needs float32.")


def _check_detector(sizes: GraphSizes, data: DataInfo) -> None:
    outputs, place = sizes.outputs, "/params/network"
    if missing := [name for name in DETECTOR_OUTPUTS if name not in outputs]:
        raise SpecError(
            place,
            f"a detector returns a mapping of {', '.join(DETECTOR_OUTPUTS)} (docs/losses.md); "
            f"missing: {', '.join(missing)}",
        )
    anchors, regions = (outputs[name].shape[:1] for name in ("anchors", "regions"))
    needed = {
        "anchors": (*anchors, 4),
        "objectness": (*anchors,),
        "anchor_deltas": (*anchors, 4),
        "regions": (*regions, 4),
        "classes": (*regions, data.outputs + 1),  # the background first
        "region_deltas": (*regions, 4),
    }
    for name, shape in needed.items():
        _check_output(outputs[name], f"as {name!r} ", shape)
