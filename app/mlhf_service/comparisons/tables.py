"""A comparison as a table, one row a run."""

from mlhf_service.comparisons.schemas import Comparison
from mlhf_service.runs import csv_text

_RUN = (
    "run_id",
    "name",
    "group",
    "optimizer",
    "model",
    "dataset",
    "seed",
    "batch_size",
    "status",
    "final_loss",
    "best_loss",
    "final_accuracy",
    "best_accuracy",
)
_REACHED = {
    "steps_to_target": "step",
    "samples_to_target": "samples",
    "epochs_to_target": "epoch",
    "seconds_to_target": "wall_seconds",
}
_RATIOS = (
    "final_loss",
    "best_loss",
    "final_accuracy",
    "best_accuracy",
    "steps",
    "samples",
    "wall_seconds",
)


def to_csv(comparison: Comparison) -> bytes:
    """CSV; a cell is empty where there is no value (a target that was missed)."""
    header = [*_RUN, "metric", "target", *_REACHED, *(f"{name}_ratio" for name in _RATIOS)]
    rows = [
        [
            *(getattr(run, name) for name in _RUN),
            comparison.metric,
            comparison.target,
            *(getattr(run.to_target, name, None) for name in _REACHED.values()),
            *(getattr(run.ratio_to_best, name) for name in _RATIOS),
        ]
        for run in comparison.runs
    ]
    return csv_text.table(header, rows)
