"""Which optimizers there are. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlhf.core.config import Strict
from mlhf.core.params import lookup, parse_params
from mlhf.optimizers import params as forms
from mlhf.optimizers.schedules import check_length


@dataclass(frozen=True)
class OptimizerSpec:
    """A registered optimizer.

    Attributes:
        name: What configurations call it.
        description: One line.
        params: The form of its parameters.
        state_copies: How many vectors of the parameters' size it holds at its peak, the
            gradient among them, the parameters themselves not. Kronecker factors, whose size
            depends on the layers, are counted as they come out for common networks; a single
            long thin layer, such as 784 to 10, has several times as much, but of few numbers.
        second_order: Whether a step keeps tangents or layer inputs beside the activations
            that a gradient needs.
    """

    name: str
    description: str
    params: type[Strict]
    state_copies: int
    second_order: bool = False


OPTIMIZERS: dict[str, OptimizerSpec] = {
    spec.name: spec
    for spec in (
        OptimizerSpec("sgd", "Stochastic gradient descent.", forms.SGDParams, 1),
        OptimizerSpec("momentum", "Gradient descent with momentum.", forms.MomentumParams, 2),
        OptimizerSpec(
            "nesterov", "Gradient descent with Nesterov momentum.", forms.MomentumParams, 2
        ),
        OptimizerSpec("rmsprop", "Steps scaled by a running mean square.", forms.RMSpropParams, 4),
        OptimizerSpec("adam", "Adam: momentum over a running mean square.", forms.AdamParams, 3),
        OptimizerSpec("adamw", "Adam with decoupled weight decay.", forms.AdamWParams, 3),
        OptimizerSpec(
            "schedule_free_adamw",
            "AdamW with averaging in place of a schedule.",
            forms.ScheduleFreeParams,
            5,
        ),
        OptimizerSpec(
            "muon", "Orthogonalised momentum for matrices, AdamW for the rest.", forms.MuonParams, 4
        ),
        OptimizerSpec(
            "shampoo", "Kronecker-factored AdaGrad with Adam's step size.", forms.ShampooParams, 26
        ),
        OptimizerSpec("soap", "Adam in the eigenbasis of Shampoo.", forms.SoapParams, 14),
        OptimizerSpec(
            "kfac",
            "K-FAC: natural gradient with Kronecker factors for each layer.",
            forms.KfacParams,
            48,
            second_order=True,
        ),
        OptimizerSpec(
            "hf",
            "Hessian-free (GGN, PCG) with fixed damping.",
            forms.FixedDampingParams,
            14,
            second_order=True,
        ),
        OptimizerSpec(
            "hf_lm",
            "Hessian-free (GGN, PCG) with Levenberg-Marquardt damping.",
            forms.LevenbergMarquardtParams,
            14,
            second_order=True,
        ),
        OptimizerSpec(
            "hf_adam",
            "Hessian-free (GGN, PCG) with growing Adam-shaped damping.",
            forms.AdamDampingParams,
            14,
            second_order=True,
        ),
        OptimizerSpec(
            "mlhf",
            "MLHF: Hessian-free with meta-learned damping and preconditioner.",
            forms.MLHFParams,
            60,
            second_order=True,
        ),
        OptimizerSpec("l2l", "L2L: updates by a meta-learned LSTM.", forms.L2LParams, 90),
    )
}


def parse(name: str, params: Mapping[str, Any]) -> Strict:
    """Check an optimizer's name and parameters.

    Raises:
        SpecError: at ``/name`` or ``/params/<field>``.
    """
    return parse_params(lookup(OPTIMIZERS, name, "optimizer").params, params)


def check_run(params: Strict, total_steps: int | None) -> None:
    """Check that parsed parameters fit a run of so many steps, None where nobody knows.

    Raises:
        SpecError: at ``/params/schedule``.
    """
    if isinstance(params, forms.RateParams):
        check_length(params.schedule, total_steps)
