"""The registry of optimizers. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.core.registry import Registry, Spec
from mlhf.optimizers.params import (
    AdamDampingParams,
    AdamParams,
    AdamWParams,
    AdEMAMixParams,
    EngdWParams,
    FixedDampingParams,
    GaussNewtonParams,
    KfacParams,
    KLShampooParams,
    L2LParams,
    LbfgsParams,
    LevenbergMarquardtParams,
    LmParams,
    MLHFParams,
    MomentumParams,
    MuonParams,
    NorMuonParams,
    PsgdParams,
    RateParams,
    RMSpropParams,
    ScheduleFreeParams,
    SGDParams,
    ShampooParams,
    SoapParams,
    SPlusParams,
    SpringParams,
)
from mlhf.optimizers.schedules import check_length

if TYPE_CHECKING:
    from torch import nn

    from mlhf.curvature.protocol import Loss
    from mlhf.optimizers.protocol import Rated

# From a model, a loss, parsed parameters and a seed to an optimizer at its full learning rate.
Build = Callable[["nn.Module", "Loss", Any, int], "Rated"]


@dataclass(frozen=True)
class OptimizerSpec(Spec[Build]):
    """A registered optimizer; its target is a ``Build``.

    Attributes:
        state_copies: How many vectors of the parameters' size it holds at its peak, the
            gradient among them, the parameters themselves not. Kronecker factors, whose size
            depends on the layers, are counted as in common networks; a single long thin layer,
            such as 784 to 10, has several times as many, but of few numbers.
        second_order: Whether a step keeps tangents or layer inputs beside the activations
            that a gradient needs.
    """

    state_copies: int
    second_order: bool = False


_FIRST_ORDER = "mlhf.optimizers.first_order"
_DENSE = "mlhf.optimizers.gauss_newton"
_HESSIAN_FREE = "mlhf.optimizers.hessian_free"

OPTIMIZERS = Registry(
    "optimizer",
    (
        OptimizerSpec(
            "sgd",
            "Stochastic gradient descent.",
            SGDParams,
            f"{_FIRST_ORDER}.first_order:sgd",
            1,
        ),
        OptimizerSpec(
            "momentum",
            "Gradient descent with momentum.",
            MomentumParams,
            f"{_FIRST_ORDER}.first_order:momentum",
            2,
        ),
        OptimizerSpec(
            "nesterov",
            "Gradient descent with Nesterov momentum.",
            MomentumParams,
            f"{_FIRST_ORDER}.first_order:nesterov",
            2,
        ),
        OptimizerSpec(
            "rmsprop",
            "Steps scaled by a running mean square.",
            RMSpropParams,
            f"{_FIRST_ORDER}.first_order:rmsprop",
            4,
        ),
        OptimizerSpec(
            "adam",
            "Adam: momentum over a running mean square.",
            AdamParams,
            f"{_FIRST_ORDER}.first_order:adam",
            3,
        ),
        OptimizerSpec(
            "adamw",
            "Adam with decoupled weight decay.",
            AdamWParams,
            f"{_FIRST_ORDER}.first_order:adamw",
            3,
        ),
        OptimizerSpec(
            "schedule_free_adamw",
            "AdamW with averaging in place of a schedule.",
            ScheduleFreeParams,
            f"{_FIRST_ORDER}.schedule_free:build",
            5,
        ),
        OptimizerSpec(
            "muon",
            "Orthogonalised momentum for matrices, AdamW for the rest.",
            MuonParams,
            f"{_FIRST_ORDER}.muon:build",
            4,
        ),
        OptimizerSpec(
            "normuon",
            "Muon with steps scaled row by row, AdamW for the rest.",
            NorMuonParams,
            f"{_FIRST_ORDER}.normuon:build",
            5,
        ),
        OptimizerSpec(
            "ademamix",
            "AdamW with a second, slow running mean of the gradient.",
            AdEMAMixParams,
            f"{_FIRST_ORDER}.ademamix:build",
            6,
        ),
        OptimizerSpec(
            "shampoo",
            "Kronecker-factored AdaGrad with Adam's step size.",
            ShampooParams,
            f"{_FIRST_ORDER}.shampoo:build",
            26,
        ),
        OptimizerSpec(
            "kl_shampoo",
            "Shampoo with factors of least Kullback-Leibler divergence.",
            KLShampooParams,
            f"{_FIRST_ORDER}.kl_shampoo:build",
            30,
        ),
        OptimizerSpec(
            "splus",
            "Signs in the eigenbasis of Shampoo, and an average of the weights.",
            SPlusParams,
            f"{_FIRST_ORDER}.splus:build",
            14,
        ),
        OptimizerSpec(
            "psgd_kron",
            "PSGD: whitening by a fitted Kronecker product of triangular matrices.",
            PsgdParams,
            f"{_FIRST_ORDER}.psgd:build",
            14,
        ),
        OptimizerSpec(
            "soap",
            "Adam in the eigenbasis of Shampoo.",
            SoapParams,
            f"{_FIRST_ORDER}.soap:build",
            14,
        ),
        OptimizerSpec(
            "kfac",
            "K-FAC: natural gradient with Kronecker factors for each layer.",
            KfacParams,
            "mlhf.optimizers.kfac.kfac:build",
            48,
            second_order=True,
        ),
        OptimizerSpec(
            "hf",
            "Hessian-free (GGN, PCG) with fixed damping.",
            FixedDampingParams,
            f"{_HESSIAN_FREE}:build_fixed",
            14,
            second_order=True,
        ),
        OptimizerSpec(
            "hf_lm",
            "Hessian-free (GGN, PCG) with Levenberg-Marquardt damping.",
            LevenbergMarquardtParams,
            f"{_HESSIAN_FREE}:build_levenberg_marquardt",
            14,
            second_order=True,
        ),
        OptimizerSpec(
            "hf_adam",
            "Hessian-free (GGN, PCG) with growing Adam-shaped damping.",
            AdamDampingParams,
            f"{_HESSIAN_FREE}:build_adam",
            14,
            second_order=True,
        ),
        OptimizerSpec(
            "gauss_newton",
            "Gauss-Newton by a dense factor, for least squares to the last digit.",
            GaussNewtonParams,
            f"{_DENSE}.optimizer:build",
            30,
            second_order=True,
        ),
        OptimizerSpec(
            "lm",
            "Levenberg-Marquardt by a dense factor.",
            LmParams,
            f"{_DENSE}.peers:build_lm",
            30,
            second_order=True,
        ),
        OptimizerSpec(
            "engd_w",
            "Energy natural gradient by the Woodbury identity, with a line search.",
            EngdWParams,
            f"{_DENSE}.peers:build_engd_w",
            30,
            second_order=True,
        ),
        OptimizerSpec(
            "spring",
            "SPRING: natural gradient in sample space with projected momentum.",
            SpringParams,
            f"{_DENSE}.peers:build_spring",
            31,
            second_order=True,
        ),
        OptimizerSpec(
            "lbfgs",
            "L-BFGS with a strong Wolfe line search.",
            LbfgsParams,
            f"{_FIRST_ORDER}.lbfgs:build",
            32,
        ),
        OptimizerSpec(
            "mlhf",
            "MLHF: Hessian-free with meta-learned damping and preconditioner.",
            MLHFParams,
            "mlhf.optimizers.mlhf.variants:build",
            60,
            second_order=True,
        ),
        OptimizerSpec(
            "l2l",
            "L2L: updates by a meta-learned LSTM.",
            L2LParams,
            "mlhf.optimizers.l2l:build",
            90,
        ),
    ),
)


_ONE_TENSOR = ("kfac", "gauss_newton", "engd_w", "spring")


def check_task(name: str, params: Strict, task: str) -> None:
    """Check that an optimizer can train a network for a task.

    Raises:
        SpecError: at ``/name`` or ``/params``.
    """
    for option in ("micro_batch", "curvature_batch"):
        if task == "heads" and getattr(params, option, None) is not None:
            raise SpecError(
                f"/params/{option}",
                "several heads cannot be computed in parts, as each has a mean of its own: leave "
                "it out, and take a smaller batch",
            )
    if task == "detection" and name in _ONE_TENSOR:
        raise SpecError(
            "/name",
            f"{name} needs a network with one output; a detector has several: take mlhf, hf_adam "
            "or adamw",
        )


def check_run(params: Strict, total_steps: int | None) -> None:
    """Check that parsed parameters fit a run of so many steps, None where nobody knows.

    Raises:
        SpecError: at ``/params/schedule``.
    """
    if isinstance(params, RateParams):
        check_length(params.schedule, total_steps)
