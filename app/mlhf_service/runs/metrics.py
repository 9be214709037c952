"""What is measured: the names, and how the API gives numbers."""

import math
from typing import Annotated, Literal

from pydantic import Field

from mlhf.ablation.config import SOLVER_VARIANTS
from mlhf.core.metrics import NonFinite

Axis = Literal["samples", "steps", "epochs", "wall_seconds", "cpu_seconds"]

METRICS: dict[str, str] = {
    "train_loss": "Loss over the training set.",
    "test_loss": "Loss over the test set.",
    "train_accuracy": "Fraction of the training set that is classified correctly; with several "
    "labels a sample, the fraction of labels.",
    "test_accuracy": "Fraction of the test set that is classified correctly; with several labels "
    "a sample, the fraction of labels.",
    "running_loss": "Mean loss of the training batches since the evaluation before.",
    "batch_loss": "Loss of each training batch, before its step.",
    "learning_rate": "Learning rate of each step, by its schedule.",
    "damping": "Scale of the damping; the mean over kinds of parameters where these differ.",
    "cg_residual": "Relative residual at the end of conjugate gradients.",
    "reduction_ratio": "Actual by predicted reduction of the batch's loss.",
    "momentum": "Coefficient of the last step in this one, from the quadratic model.",
    "step_factor": "What a learned network multiplies the step by.",
    "skipped_steps": "Steps skipped so far because they were not finite; no point where none was.",
    "step_scale": "Factor by which bounds shortened the step.",
    "meta_loss_p": "Meta-loss of the preconditioner's network.",
    "meta_loss_s": "Meta-loss of the damping's network.",
    "meta_loss": "Meta-loss of the network that sets the step.",
    "inner_loss": "Loss along the unrolls of meta-training.",
    **{
        form.metric("l_p"): f"l_p of the solve {form.name!r} (ablation)."
        for form in SOLVER_VARIANTS
    },
    **{
        form.metric("residual"): f"‖r‖/‖b‖ of {form.name!r} (ablation)." for form in SOLVER_VARIANTS
    },
}

# What is measured on training batches, and does not say so in its name.
_LABELS = {"running_loss": "running train loss", "batch_loss": "train batch loss"}


def label(metric: str) -> str:
    """A metric's name as people are shown it; of a loss or an accuracy it names the split."""
    return _LABELS.get(metric, metric.replace("_", " "))


# A number, or the name of one that JSON cannot hold.
Number = Annotated[float | NonFinite, Field(description="NaN and infinities are given by name.")]


def number(value: float | str | None, nonfinite: str | None = None) -> float:
    """Return the number that a point's two columns hold."""
    if nonfinite is not None:
        return float(nonfinite)
    return math.nan if value is None else float(value)
