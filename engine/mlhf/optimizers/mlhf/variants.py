"""MLHF by the name of its variant."""

from pathlib import Path
from typing import Any, Literal

from torch import nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF

Variant = Literal["kronecker", "paper"]


def MLHF(  # noqa: N802 - it is used as a class
    model: nn.Module,
    loss: Loss = "cross_entropy",
    meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
    variant: Variant = "kronecker",
    *,
    seed: int = 0,
    **options: Any,
) -> KroneckerMLHF | PaperMLHF:
    """Return the meta-learned Hessian-free optimizer.

    ``opt = MLHF(model); opt.step(x, y)``.

    Args:
        model: Any module that returns a tensor, or a tuple, list or dict of tensors.
        loss: ``"cross_entropy"``, ``"mse"``, ``"binary_cross_entropy"``, or a function
            (z, y) ↦ scalar of what the model returns.
        meta_checkpoint: What the networks learned: ``"default"`` is what is shipped, a path
            names a file, None leaves them untrained.
        variant: ``"kronecker"`` (``KroneckerMLHF``) or ``"paper"`` (``PaperMLHF``).
        seed: Of what the Kronecker form draws; the paper's draws nothing.
        options: Further arguments of the variant.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        DataError: where the meta-checkpoint cannot be read, or is the other variant's.
    """
    if variant == "kronecker":
        return KroneckerMLHF(model, loss, meta_checkpoint, seed=seed, **options)
    if variant != "paper":
        raise ValueError(f"unknown variant {variant!r}; known: kronecker, paper")
    return PaperMLHF(model, loss, meta_checkpoint, **options)
