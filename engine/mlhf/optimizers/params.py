"""The parameters of each optimizer. Needs no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mlhf.core.config import Strict
from mlhf.optimizers.gauss_newton.memory_plan import MEMORY_BYTES
from mlhf.optimizers.schedules import Constant, Fraction, Schedule

LearningRate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Iterations = Annotated[int, Field(ge=1, le=250, strict=True)]
Interval = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Samples = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
SkippedSteps = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
Bytes = Annotated[int, Field(ge=1, le=2**50, strict=True)]
Dimension = Annotated[int, Field(ge=1, le=16_384, strict=True)]

_L2 = "L2 penalty: this times the parameters is added to the gradient."
_DECOUPLED = "Decoupled: parameters shrink by lr times this each step."


class RateParams(Strict):
    """Parameters of every optimizer with a learning rate."""

    lr: LearningRate = Field(description="Learning rate.")
    schedule: Schedule = Field(
        default_factory=Constant,
        description="How the learning rate changes over the run: constant, linear, cosine or "
        "step, each with an optional warm-up.",
    )
    max_skipped_steps: SkippedSteps = Field(
        default=10,
        description="A step that is not finite is skipped; after so many in a row the run ends.",
    )


class SGDParams(RateParams):
    """Stochastic gradient descent."""

    lr: LearningRate = Field(default=0.1, description="Learning rate.")
    weight_decay: NonNegative = Field(default=0.0, description=_L2)


class MomentumParams(SGDParams):
    """Gradient descent with momentum, Nesterov's or Polyak's."""

    lr: LearningRate = Field(default=0.03, description="Learning rate.")
    momentum: Decay = Field(default=0.9, description="Fraction of the last step that is kept.")


class RMSpropParams(RateParams):
    """RMSprop."""

    lr: LearningRate = Field(default=1e-3, description="Learning rate.")
    alpha: Decay = Field(default=0.99, description="Decay of the mean squared gradient.")
    eps: Positive = Field(default=1e-8, description="Added to the root in the denominator.")
    momentum: Decay = Field(default=0.0, description="Fraction of the last step that is kept.")
    weight_decay: NonNegative = Field(default=0.0, description=_L2)


class AdamParams(RateParams):
    """Adam."""

    lr: LearningRate = Field(default=1e-3, description="Learning rate.")
    beta1: Decay = Field(default=0.9, description="Decay of the mean gradient.")
    beta2: Decay = Field(default=0.999, description="Decay of the mean squared gradient.")
    eps: Positive = Field(default=1e-8, description="Added to the root in the denominator.")
    weight_decay: NonNegative = Field(default=0.0, description=_L2)


class AdamWParams(AdamParams):
    """Adam with decoupled weight decay."""

    weight_decay: NonNegative = Field(default=0.01, description=_DECOUPLED)


class ScheduleFreeParams(AdamParams):
    """AdamW without a schedule: the average of the steps takes its place."""

    lr: LearningRate = Field(default=2.5e-3, description="Learning rate.")
    beta1: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.9, description="Where between the steps and their average gradients are taken."
    )
    weight_decay: NonNegative = Field(default=0.0, description=_DECOUPLED)


class MuonParams(RateParams):
    """Muon for matrices and convolution kernels, AdamW for the rest."""

    lr: LearningRate = Field(
        default=0.01, description="Learning rate of both, on AdamW's scale (0.2·√max(rows, cols))."
    )
    momentum: Decay = Field(default=0.95, description="Muon's momentum.")
    nesterov: bool = Field(default=True, description="Whether that momentum is Nesterov's.")
    iterations: Annotated[int, Field(ge=1, le=20, strict=True)] = Field(
        default=5, description="Newton-Schulz iterations that make a step orthogonal."
    )
    beta1: Decay = Field(default=0.9, description="AdamW's decay of the mean gradient.")
    beta2: Decay = Field(default=0.95, description="AdamW's decay of the mean squared gradient.")
    eps: Positive = Field(default=1e-8, description="AdamW's, added to the root.")
    weight_decay: NonNegative = Field(default=0.01, description=_DECOUPLED)


class NorMuonParams(MuonParams):
    """Muon with steps scaled row by row, AdamW for the rest."""

    row_beta2: Decay = Field(default=0.95, description="Decay of the rows' mean squares.")


class AdEMAMixParams(AdamWParams):
    """AdamW with a second, slow running mean of the gradient."""

    beta3: Decay = Field(default=0.9999, description="Decay of the slow mean gradient.")
    alpha: NonNegative = Field(default=5.0, description="Weight of the slow mean in a step.")
    warmup_steps: Interval | None = Field(
        default=None, description="Steps over which alpha and beta3 grow to what they are."
    )


class SPlusParams(RateParams):
    """SPlus: signs in the eigenbasis of Shampoo's factors, and an average of the weights."""

    lr: LearningRate = Field(
        default=0.1,
        description="Learning rate: a matrix (m, n) takes 2/(m + n) of it, the rest a thousandth.",
    )
    beta1: Decay = Field(default=0.9, description="Decay of the mean gradient.")
    beta2: Decay = Field(default=0.999, description="Decay of the factors.")
    weight_decay: NonNegative = Field(default=0.01, description=_DECOUPLED)
    average_decay: Decay = Field(
        default=0.999, description="Decay of the weights' average, which is the result."
    )
    precondition_every: Interval = Field(
        default=100, description="Steps between two updates of the eigenbases."
    )
    max_dimension: Dimension = Field(
        default=10_000, description="A dimension as long or longer is not rotated."
    )


class PsgdParams(RateParams):
    """PSGD: whitening by a Kronecker product of triangular matrices that is fitted as it goes."""

    lr: LearningRate = Field(default=1e-3, description="Learning rate.")
    momentum: Decay = Field(default=0.9, description="Decay of the mean gradient.")
    weight_decay: NonNegative = Field(default=0.0, description=_DECOUPLED)
    max_dimension: Dimension = Field(
        default=8192, description="A longer dimension of a parameter has a diagonal factor."
    )


class SoapParams(RateParams):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

    lr: LearningRate = Field(default=3e-3, description="Learning rate.")
    beta1: Decay = Field(default=0.95, description="Decay of the mean gradient.")
    beta2: Decay = Field(default=0.95, description="Decay of the squares and of the factors.")
    eps: Positive = Field(default=1e-8, description="Added to the root in the denominator.")
    weight_decay: NonNegative = Field(default=0.01, description=_DECOUPLED)
    precondition_every: Interval = Field(
        default=10, description="Steps between two updates of the eigenbases."
    )
    max_dimension: Dimension = Field(
        default=1024, description="A longer dimension of a parameter is not rotated."
    )


class ShampooParams(RateParams):
    """Shampoo with the size of Adam's step (grafting)."""

    lr: LearningRate = Field(default=3e-3, description="Learning rate.")
    beta1: Decay = Field(default=0.9, description="Decay of the mean gradient.")
    beta2: Decay = Field(default=0.99, description="Decay of the squares and of the factors.")
    eps: Positive = Field(default=1e-8, description="Added to the root in Adam's denominator.")
    matrix_eps: Positive = Field(
        default=1e-6, description="Added to the factors' eigenvalues, relative to the largest."
    )
    weight_decay: NonNegative = Field(default=0.0, description=_DECOUPLED)
    precondition_every: Interval = Field(
        default=10, description="Steps between two updates of the factors' roots."
    )
    block_size: Dimension = Field(
        default=1024, description="Larger parameters are treated in blocks of this size."
    )


class KLShampooParams(ShampooParams):
    """Shampoo with the factors of least Kullback-Leibler divergence, nothing grafted."""

    beta2: Decay = Field(default=0.95, description="Decay of the squares and of the factors.")


class KfacParams(RateParams):
    """K-FAC: natural gradient with Kronecker factors for each layer."""

    lr: LearningRate = Field(default=0.1, description="Learning rate.")
    momentum: Decay = Field(default=0.9, description="Fraction of the last step that is kept.")
    weight_decay: NonNegative = Field(
        default=0.0, description="L2 penalty, part of both the gradient and the curvature."
    )
    damping: Positive = Field(
        default=0.03, description="λ, split between both factors of a layer by their traces."
    )
    decay: Decay = Field(default=0.95, description="Decay of the factors' running means.")
    fisher: Literal["sampled", "empirical", "exact"] = Field(
        default="sampled",
        description="Labels drawn from the network's own outputs, the data's labels, or all "
        "labels by their probability (one backward pass per output).",
    )
    factors_every: Interval = Field(default=5, description="Steps between two updates of factors.")
    inverse_every: Interval = Field(default=10, description="Steps between two inversions.")
    kl_clip: Positive | None = Field(
        default=3e-4, description="Bound on a step's squared length in the Fisher metric."
    )
    norm_clip: Positive | None = Field(
        default=None, description="Bound on the norm of the preconditioned gradient."
    )
    max_dimension: Dimension = Field(
        default=4608, description="A larger factor keeps only its diagonal."
    )


class HessianFreeParams(RateParams):
    """Parameters of every Hessian-free optimizer."""

    lr: LearningRate = Field(default=1.0, description="Factor of the step; damping sets its size.")
    iterations: Iterations = Field(
        default=4, description="Conjugate gradient iterations; each costs about one gradient."
    )
    weight_decay: NonNegative = Field(
        default=0.0, description="L2 penalty, part of both the gradient and the curvature."
    )


class BatchedParams(HessianFreeParams):
    """How a batch is computed: in microbatches, with less curvature, in lower precision."""

    micro_batch: Samples | None = Field(
        default=None,
        description="Samples computed at a time, to save memory; each product then runs the "
        "forward pass again. Batch norm sees each microbatch by itself.",
    )
    curvature_batch: Samples | None = Field(
        default=None,
        description="Samples of each batch that the curvature is computed over; by default all.",
    )
    autocast: Literal["bfloat16"] | None = Field(
        default=None,
        description="Precision of forward and backward passes; the solve keeps the parameters'.",
    )


class FixedDampingParams(BatchedParams):
    """Hessian-free with one constant on the diagonal."""

    damping: Positive = Field(default=1.0, description="Constant added to the diagonal.")
    warm_start: Fraction = Field(
        default=1.0, description="Fraction of the last solution that the next solve starts from."
    )


class LevenbergMarquardtParams(BatchedParams):
    """Hessian-free with damping by the ratio of actual to predicted reduction."""

    damping: Positive = Field(default=1.0, description="λ at step 0.")
    decrease: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95, description="λ is multiplied by it where the ratio is above 3/4."
    )
    increase: Annotated[float, Field(ge=1, le=100)] = Field(
        default=3.0, description="λ is multiplied by it where the ratio is below 1/4."
    )
    min_damping: Positive = Field(
        default=0.3,
        description="λ never falls below it, or below what the gradient's norm, relative to the "
        "first, makes of it.",
    )
    max_damping: Positive = Field(
        default=1e6, validate_default=True, description="λ never rises above it."
    )
    warm_start: Fraction = Field(
        default=0.95, description="Fraction of the last solution that the next solve starts from."
    )

    @field_validator("max_damping")
    @classmethod
    def _not_below_the_lowest(cls, value: float, info: ValidationInfo) -> float:
        lowest = info.data.get("min_damping")
        if lowest is not None and value < lowest:
            raise ValueError(f"{value:g} is below min_damping, which is {lowest:g}")
        return value


class DenseParams(RateParams):
    """Parameters of every optimizer that solves with the rows of a batch's Jacobian."""

    lr: LearningRate = Field(default=1.0, description="Factor of the step, whose length adapts.")
    weight_decay: NonNegative = Field(
        default=0.0, description="L2 penalty, part of both the gradient and the curvature."
    )
    memory_bytes: Bytes = Field(
        default=MEMORY_BYTES,
        description="Bound on the Jacobian's rows and the matrix; beyond it they are computed in "
        "blocks, or conjugate gradients solve.",
    )


class GaussNewtonParams(DenseParams):
    """Gauss-Newton by a dense factor, for least squares. Nothing needs tuning."""

    damping: Positive | None = Field(
        default=None,
        description="At step 0, relative to the matrix's trace; by default 1e-11 in float64 and "
        "1e-5 in float32. It adapts.",
    )


class LmParams(DenseParams):
    """Levenberg-Marquardt with a dense factor and Nielsen's damping."""

    tau: Positive = Field(
        default=1e-3, description="Damping at step 0, relative to the matrix's mean diagonal."
    )


class EngdWParams(DenseParams):
    """Energy natural gradient descent by the Woodbury identity, with a line search."""

    damping: Positive = Field(default=1e-9, description="Constant added to the matrix.")


class SpringParams(DenseParams):
    """SPRING: natural gradient with a momentum that the batch's rows project."""

    lr: LearningRate = Field(default=0.02, description="Learning rate.")
    damping: Positive = Field(default=1e-3, description="Constant added to the matrix.")
    momentum: Decay = Field(default=0.99, description="Fraction of the last step that is kept.")
    norm_constraint: Positive | None = Field(
        default=1e-3, description="Bound on a step's squared norm."
    )


class LbfgsParams(RateParams):
    """L-BFGS with a strong Wolfe line search."""

    lr: LearningRate = Field(default=1.0, description="The line search's first length.")
    weight_decay: NonNegative = Field(default=0.0, description=_L2)
    iterations: Iterations = Field(
        default=20, description="Iterations of a step, all on its batch."
    )
    history: Annotated[int, Field(ge=1, le=250, strict=True)] = Field(
        default=10, description="Pairs of steps and gradients that the matrix is made of."
    )


_META_CHECKPOINT = (
    "What its networks learned: `default` is what ships with the product, `none` leaves them "
    "untrained, any other text names a meta-checkpoint: by its path, in the "
    "service by its id or alias."
)
MetaCheckpointName = Annotated[str, Field(min_length=1, max_length=4096)]


class MLHFParams(BatchedParams):
    """MLHF: damping and preconditioner by learned networks. No rate needs tuning."""

    iterations: Iterations = Field(
        default=1,
        description="kronecker: preconditioned directions, by default 1; paper: conjugate "
        "gradient iterations, by default 4.",
    )
    meta_checkpoint: MetaCheckpointName = Field(default="default", description=_META_CHECKPOINT)
    compile: bool = Field(
        default=False,
        description="paper: the whole step as one compiled graph, after a first step of half a "
        "minute or more; where that is not possible, steps stay eager.",
    )
    variant: Literal["kronecker", "paper"] = Field(
        default="kronecker",
        validate_default=True,
        description="kronecker: the quadratic model's exact minimum over a few directions, in "
        "a Kronecker eigenbasis; paper: as published.",
    )

    average: Fraction = Field(
        default=0.03,
        description="kronecker: what is evaluated and saved is the weights' average over this "
        "fraction of the steps so far; 0: the last step's weights.",
    )

    @model_validator(mode="before")
    @classmethod
    def _iterations_of_variant(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("variant") == "paper":
            return {"iterations": 4, **values}
        return values

    @field_validator("variant")
    @classmethod
    def _refuse_options_of_the_paper(cls, value: str, info: ValidationInfo) -> str:
        for name in ("micro_batch", "curvature_batch", "compile"):
            if value != "paper" and info.data.get(name):
                raise ValueError(f"only the paper variant takes {name}")
        return value


class L2LParams(RateParams):
    """L2L: updates by a learned LSTM."""

    lr: LearningRate = Field(default=1.0, description="Factor of the learned update.")
    meta_checkpoint: MetaCheckpointName = Field(default="default", description=_META_CHECKPOINT)
    weight_decay: NonNegative = Field(default=0.0, description=_L2)


class AdamDampingParams(BatchedParams):
    """Hessian-free with growing Adam-shaped damping: λ(1 + k/T)^a · (√v̂ + eps)."""

    damping: Positive = Field(default=50.0, description="λ: scale of the damping at step 0.")
    growth_steps: Positive = Field(default=100.0, description="T: steps over which it grows.")
    growth_exponent: Annotated[float, Field(ge=0, le=4)] = Field(
        default=0.5, description="a: 0 keeps the scale constant."
    )
    beta2: Decay = Field(default=0.99, description="Decay of the mean squared gradient v.")
    eps: Positive = Field(default=1e-5, description="Added to √v̂.")
    warm_start: Fraction = Field(
        default=0.9, description="Fraction of the last solution that the next solve starts from."
    )
