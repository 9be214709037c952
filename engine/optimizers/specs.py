"""Which optimizers there are and what each is told. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from engine.errors import SpecError
from engine.training.config import Strict

Rate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Iterations = Annotated[int, Field(ge=1, le=250, strict=True)]

_L2 = "L2 penalty: this times the parameters is added to the gradient."


class SGDParams(Strict):
    """Stochastic gradient descent."""

    lr: Rate = Field(default=0.1, description="Learning rate.")
    weight_decay: NonNegative = Field(default=0.0, description=_L2)


class MomentumParams(SGDParams):
    """Gradient descent with momentum, Nesterov's or Polyak's."""

    lr: Rate = Field(default=0.03, description="Learning rate.")
    momentum: Decay = Field(default=0.9, description="Part of the last step that is kept.")


class RMSpropParams(Strict):
    """RMSprop."""

    lr: Rate = Field(default=1e-3, description="Learning rate.")
    alpha: Decay = Field(default=0.99, description="Decay of the mean squared gradient.")
    eps: Positive = Field(default=1e-8, description="Added to the root in the denominator.")
    momentum: Decay = Field(default=0.0, description="Part of the last step that is kept.")
    weight_decay: NonNegative = Field(default=0.0, description=_L2)


class AdamParams(Strict):
    """Adam."""

    lr: Rate = Field(default=1e-3, description="Learning rate.")
    beta1: Decay = Field(default=0.9, description="Decay of the mean gradient.")
    beta2: Decay = Field(default=0.999, description="Decay of the mean squared gradient.")
    eps: Positive = Field(default=1e-8, description="Added to the root in the denominator.")
    weight_decay: NonNegative = Field(default=0.0, description=_L2)


class AdamWParams(AdamParams):
    """Adam with decoupled weight decay."""

    weight_decay: NonNegative = Field(
        default=0.01, description="Decoupled: parameters shrink by lr times this each step."
    )


class HessianFreeParams(Strict):
    """What every Hessian-free form is told."""

    lr: Rate = Field(default=1.0, description="Factor of the step; damping sets its size.")
    iterations: Iterations = Field(
        default=4, description="Conjugate gradient iterations; each costs about one gradient."
    )
    weight_decay: NonNegative = Field(
        default=0.0, description="L2 penalty, part of both the gradient and the curvature."
    )


class FixedDampingParams(HessianFreeParams):
    """Hessian-free with one constant on the diagonal."""

    damping: Positive = Field(default=1.0, description="Constant added to the diagonal.")
    warm_start: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="Part of the last solution the next solve starts from."
    )


class AdamDampingParams(HessianFreeParams):
    """Hessian-free with growing Adam-shaped damping: λ(1 + k/T)^a · (√v̂ + eps)."""

    damping: Positive = Field(default=50.0, description="λ: scale of the damping at step 0.")
    growth_steps: Positive = Field(default=100.0, description="T: steps over which it grows.")
    growth_exponent: Annotated[float, Field(ge=0, le=4)] = Field(
        default=0.5, description="a: 0 keeps the scale constant."
    )
    beta2: Decay = Field(default=0.99, description="Decay of the mean squared gradient v.")
    eps: Positive = Field(default=1e-5, description="Added to √v̂.")
    warm_start: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.9, description="Part of the last solution the next solve starts from."
    )


@dataclass(frozen=True)
class OptimizerSpec:
    """A registered optimizer: its name, one line about it, and the form of its parameters."""

    name: str
    description: str
    params: type[Strict]


OPTIMIZERS: dict[str, OptimizerSpec] = {
    spec.name: spec
    for spec in (
        OptimizerSpec("sgd", "Stochastic gradient descent.", SGDParams),
        OptimizerSpec("momentum", "Gradient descent with momentum.", MomentumParams),
        OptimizerSpec("nesterov", "Gradient descent with Nesterov momentum.", MomentumParams),
        OptimizerSpec("rmsprop", "Steps scaled by a running mean square.", RMSpropParams),
        OptimizerSpec("adam", "Adam: momentum over a running mean square.", AdamParams),
        OptimizerSpec("adamw", "Adam with decoupled weight decay.", AdamWParams),
        OptimizerSpec("hf", "Hessian-free (GGN, PCG) with fixed damping.", FixedDampingParams),
        OptimizerSpec(
            "hf_adam",
            "Hessian-free (GGN, PCG) with growing Adam-shaped damping.",
            AdamDampingParams,
        ),
    )
}


def parse(name: str, params: Mapping[str, Any]) -> Strict:
    """Check an optimizer's name and parameters.

    Raises:
        SpecError: at ``/name`` or ``/params/<field>``.
    """
    spec = OPTIMIZERS.get(name)
    if spec is None:
        known = ", ".join(OPTIMIZERS)
        raise SpecError("/name", f"Unknown optimizer {name!r}. Known: {known}.")
    try:
        return spec.params.model_validate(dict(params))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"/{part}" for part in first["loc"])
        raise SpecError(f"/params{path}", f"{first['msg']}.") from error
