"""MLHF: the base class of its variants, which also makes them."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, overload

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.autocast import autocast_dtype
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, source_of
from mlhf.optimizers.options import check_model
from mlhf.optimizers.params import MLHFParams
from mlhf.optimizers.torch_api.base import TorchOptimizer
from mlhf.optimizers.torch_api.param_groups import Parameters

if TYPE_CHECKING:
    from mlhf.optimizers.mlhf.kernels.choose import Wanted

Variant = Literal["kronecker", "paper"]
Source = str | Path | MetaCheckpoint | None
T = TypeVar("T")

# Imported on first use: each brings what the other does not need.
_CLASSES = {
    "kronecker": "mlhf.optimizers.mlhf.kronecker.optimizer:KroneckerMLHF",
    "paper": "mlhf.optimizers.mlhf.paper.optimizer:PaperMLHF",
}


class CommonOptions(TypedDict, total=False):
    """Keyword arguments of both variants."""

    iterations: int
    lr: float
    weight_decay: float
    autocast: torch.dtype | None
    seed: int
    max_skipped_steps: int


class KroneckerOptions(CommonOptions, total=False):
    """Keyword arguments of ``KroneckerMLHF``."""

    solve_every: int
    average: float
    damping: float
    growth_steps: float
    parameters: Parameters | None
    decay: float
    update_every: int
    refresh_every: int
    samples: int
    max_dimension: int
    position_damping: bool
    memory_bytes: int


class PaperOptions(CommonOptions, total=False):
    """Keyword arguments of ``PaperMLHF``; ``seed`` is accepted, and nothing is drawn."""

    tolerance: float
    parameters: Parameters | None
    kernel: "Wanted"
    compile: bool
    micro_batch: int | None
    curvature_batch: int | None


class _VariantType(type):
    """Calls of ``MLHF`` make an instance of a variant's class; calls of that class are plain."""

    def __call__(cls: type[T], *args: Any, **options: Any) -> T:
        if cls is MLHF:
            return _make(*args, **options)  # type: ignore[return-value]
        return super().__call__(*args, **options)  # type: ignore[misc, no-any-return]

    @property
    def __signature__(cls) -> inspect.Signature:
        if cls is MLHF:
            return inspect.signature(_make)
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        return own.replace(parameters=list(own.parameters.values())[1:])  # without self


class MLHF(TorchOptimizer, metaclass=_VariantType):
    """The meta-learned Hessian-free optimizer.

    ``opt = MLHF(model); opt.step(x, y)``. What is made is an instance of the variant's class,
    ``KroneckerMLHF`` by default, which is a subclass of this one.

    Args:
        model: Any module that returns a tensor, or a tuple, list or dict of tensors.
        loss: ``"cross_entropy"``, ``"mse"``, ``"binary_cross_entropy"``, or a function
            (z, y) ↦ scalar of what the model returns.
        meta_checkpoint: What the networks learned: ``"default"`` for the shipped file, the
            path of another, or None to leave them untrained.
        variant: ``"kronecker"`` (``KroneckerMLHF``) or ``"paper"`` (``PaperMLHF``).
        seed: Of the random numbers that the Kronecker variant draws; the paper's draws none.
        options: Further arguments of the variant's class.

    Attributes:
        model: The model that is trained.
        loss_function: Its loss.
        lr: Factor of the step; it may be set between steps.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        networks: The learned networks, by name.
        skipped_steps: How many steps were skipped so far, because they were not finite.

    Raises:
        CurvatureError: where no parameter requires a gradient, or one has no shape yet.
        DataError: where the meta-checkpoint cannot be read, or is the other variant's.
        TypeError: for an option of the other variant.
        ValueError: for an unknown variant, or an option out of range.
    """

    networks: Mapping[str, nn.Module]

    @property
    def skipped_steps(self) -> int:
        raise NotImplementedError

    if TYPE_CHECKING:

        @overload
        def __new__(
            cls,
            model: nn.Module,
            loss: Loss = ...,
            meta_checkpoint: Source = ...,
            variant: Literal["kronecker"] = ...,
            **options: Unpack[KroneckerOptions],
        ) -> "AveragingMLHF": ...

        @overload
        def __new__(
            cls,
            model: nn.Module,
            loss: Loss = ...,
            meta_checkpoint: Source = ...,
            *,
            variant: Literal["paper"],
            **options: Unpack[PaperOptions],
        ) -> "MLHF": ...

        @overload
        def __new__(
            cls,
            model: nn.Module,
            loss: Loss,
            meta_checkpoint: Source,
            variant: Literal["paper"],
            **options: Unpack[PaperOptions],
        ) -> "MLHF": ...

        @overload
        def __new__(
            cls,
            model: nn.Module,
            loss: Loss = ...,
            meta_checkpoint: Source = ...,
            variant: Variant = ...,
            **options: Unpack[CommonOptions],
        ) -> "MLHF": ...

        def __new__(cls, *args: Any, **options: Any) -> "MLHF": ...


class AveragingMLHF(MLHF):
    """An MLHF whose result is an average of its weights: the Kronecker variant."""

    def eval_mode(self) -> None:
        """Put the averaged weights into the model, to be evaluated and saved."""
        raise NotImplementedError

    def train_mode(self) -> None:
        """Put the weights that steps start from back into the model."""
        raise NotImplementedError

    def eval(self) -> None:
        """``eval_mode``, by the name that trainers call before an evaluation."""
        self.eval_mode()

    def train(self) -> None:
        """``train_mode``, by the name that trainers call before a step."""
        self.train_mode()


def _make(
    model: nn.Module,
    loss: Loss = "cross_entropy",
    meta_checkpoint: Source = "default",
    variant: Variant = "kronecker",
    *,
    seed: int = 0,
    **options: Any,
) -> MLHF:
    if variant not in _CLASSES:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(_CLASSES)}")
    if variant == "kronecker":
        options["seed"] = seed
    check_model(model)
    if any(map(is_lazy, model.parameters())):
        raise CurvatureError(
            "the model has parameters whose shapes are not known yet (nn.Lazy…): run it once on a "
            "batch before the optimizer is made"
        )
    make: Callable[..., MLHF] = resolve_name(_CLASSES[variant])
    return make(model, loss, meta_checkpoint, **options)


def build(model: nn.Module, loss: Loss, params: MLHFParams, seed: int) -> MLHF:
    """Return ``mlhf`` of the registry."""
    source, autocast = source_of(params.meta_checkpoint), autocast_dtype(params.autocast)
    if params.variant == "kronecker":
        return MLHF(
            model,
            loss,
            source,
            iterations=params.iterations,
            lr=params.lr,
            weight_decay=params.weight_decay,
            average=params.average,
            autocast=autocast,
            seed=seed,
            max_skipped_steps=params.max_skipped_steps,
        )
    return MLHF(
        model,
        loss,
        source,
        "paper",
        iterations=params.iterations,
        lr=params.lr,
        weight_decay=params.weight_decay,
        compile=params.compile,
        micro_batch=params.micro_batch,
        curvature_batch=params.curvature_batch,
        autocast=autocast,
        max_skipped_steps=params.max_skipped_steps,
    )
