"""What is measured: the names, and how the API gives numbers."""

from typing import Annotated, Literal

from pydantic import Field

from mlhf.ablation.config import MEASURES, SOLVER_VARIANTS
from mlhf.core.metrics import NonFinite

Axis = Literal["samples", "steps", "epochs", "wall_seconds", "cpu_seconds"]

_PART = "on the fixed samples that the run's `environment.evaluation` counts"
_CORRECT = "is classified correctly; with several labels a sample, the fraction of labels"

METRICS: dict[str, str] = {
    "train_loss": f"Loss over the training set, {_PART}.",
    "test_loss": f"Loss over the test set, {_PART}.",
    "train_accuracy": f"Fraction of the training set that {_CORRECT}; {_PART}.",
    "test_accuracy": f"Fraction of the test set that {_CORRECT}; {_PART}.",
    "train_relative_l2": "Root of the squared errors' sum over that of the targets of a "
    f"regression, training set, {_PART}.",
    "test_relative_l2": f"The same of the test set; {_PART}.",
    "whole_train_loss": "Loss over the whole training set, at the end of a run that measured a "
    "part of it on the way.",
    "whole_test_loss": "The same over the whole test set.",
    "whole_train_accuracy": f"Fraction of the whole training set that {_CORRECT}.",
    "whole_test_accuracy": f"Fraction of the whole test set that {_CORRECT}.",
    "whole_train_relative_l2": "`train_relative_l2` over the whole training set.",
    "whole_test_relative_l2": "`test_relative_l2` over the whole test set.",
    "running_loss": "Mean loss of the training batches since the evaluation before.",
    "batch_loss": "Loss of each training batch, before its step.",
    "learning_rate": "Learning rate of each step, by its schedule.",
    "damping": "Scale of the damping; the mean over kinds of parameters where these differ.",
    "cg_residual": "Relative residual at the end of conjugate gradients.",
    "reduction_ratio": "Actual by predicted reduction of the batch's loss.",
    "step_length": "Fraction of a Gauss-Newton step that was taken.",
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

# Names that alone say too little: of which data, of which network, of which solve.
_LABELS = {
    "running_loss": "running train loss",
    "batch_loss": "train batch loss",
    "meta_loss_p": "meta-loss of the preconditioner",
    "meta_loss_s": "meta-loss of the damping",
    "meta_loss": "meta-loss of the step",
    "cg_residual": "CG residual",
    **{
        form.metric(measure): f"{name}: {form.name}"
        for form in SOLVER_VARIANTS
        for measure, name in MEASURES.items()
    },
}


def has_best(metric: str) -> bool:
    """Whether one value of a metric is better than another: not of a damping or a step's length."""
    return metric.endswith(("loss", "accuracy", "relative_l2"))


def label(metric: str) -> str:
    """A metric's name as people are shown it; of a loss or an accuracy it names the split."""
    return _LABELS.get(metric, metric.replace("_", " "))


# A number, or the name of one that JSON cannot hold.
Number = Annotated[float | NonFinite, Field(description="NaN and infinities are given by name.")]
