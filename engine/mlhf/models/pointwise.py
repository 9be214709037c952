"""Networks whose outputs are differentiated in their inputs, point by point. Needs no torch."""

from collections.abc import Iterable
from typing import Any

from mlhf.core.errors import SpecError
from mlhf.models import layer_specs as spec
from mlhf.models.layer_specs import SequentialParams
from mlhf.models.params import MlpParams
from mlhf.models.specs import ModelSummary

_STRAIGHT = ("relu", "leaky_relu")  # their second derivative is 0
_RANDOM = "dropout makes a residual random: leave it out"
SMOOTH = "tanh, gelu, silu, sigmoid or softplus"


def check_pointwise(params: Any, summary: ModelSummary, *, second: bool) -> None:
    """Check that a network has derivatives in its inputs, at each point by itself.

    Args:
        params: The model's parsed parameters. Of a graph only its sizes are looked at.
        summary: The network's sizes.
        second: Whether second derivatives are needed.

    Raises:
        SpecError: at ``/params`` or below.
    """
    if summary.normalized_over is not None:
        place = "/params/batch_norm" if isinstance(params, MlpParams) else "/params"
        raise SpecError(
            place, "batch norm mixes the points of a batch: leave it out, or take layer_norm"
        )
    if isinstance(params, MlpParams):
        if second and params.hidden and params.activation in _STRAIGHT:
            raise _straight("/params/activation", params.activation)
        if params.dropout:
            raise SpecError("/params/dropout", _RANDOM)
    if isinstance(params, SequentialParams):
        _check_layers(params.layers, second, "/params/layers")


def _check_layers(layers: Iterable[spec.Layer], second: bool, pointer: str) -> None:
    for number, layer in enumerate(layers):
        at = f"{pointer}/{number}"
        match layer:
            case spec.Dropout(p=p) if p > 0:
                raise SpecError(at, _RANDOM)
            case spec.Activation(function=function) if second and function in _STRAIGHT:
                raise _straight(f"{at}/function", function)
            case spec.Residual(layers=inner):
                _check_layers(inner, second, f"{at}/layers")
            case _:
                pass


def _straight(pointer: str, function: str) -> SpecError:
    return SpecError(
        pointer,
        f"{function} has no second derivative, which the equation needs: take {SMOOTH}",
    )
