"""A comparison as a table, one row a run."""

from mlhf_service.comparisons.schemas import ComparedRun, Comparison, Measure
from mlhf_service.comparisons.service import METRICS
from mlhf_service.runs import csv_text

_RUN = (
    "run_id",
    "job_id",
    "name",
    "group",
    "optimizer",
    "model",
    "dataset",
    "dataset_name",
    "seed",
    "batch_size",
    "status",
)
_REACHED = {
    "steps_to_target": "step",
    "samples_to_target": "samples",
    "epochs_to_target": "epoch",
    "seconds_to_target": "wall_seconds",
    "cpu_seconds_to_target": "cpu_seconds",
}
_RATIOS = ("steps", "samples", "wall_seconds", "cpu_seconds")
# Of every metric; the columns are named final_train_loss, best_test_accuracy_ratio and so on.
_VALUES = {"final_{}": "final", "best_{}": "best"}
_VALUE_RATIOS = {"final_{}_ratio": "final_ratio", "best_{}_ratio": "best_ratio"}


def to_csv(comparison: Comparison) -> bytes:
    """CSV, with the same columns whatever is compared, and then a column a hyperparameter.

    A cell is empty where there is no value; ``target_status`` says why a target was not reached.
    """
    header = [
        *_RUN,
        *_named(_VALUES),
        "diverged_at_step",
        "processor_share",
        *("metric", "target", "target_status"),
        *_REACHED,
        *_named(_VALUE_RATIOS),
        *(f"{name}_ratio" for name in _RATIOS),
    ]
    parameters = list(dict.fromkeys(name for run in comparison.runs for name in run.params))
    rows = [
        [
            *(getattr(run, name) for name in _RUN),
            *_of_metrics(run, _VALUES),
            getattr(run.diverged_at, "step", None),
            run.processor_share,
            *(comparison.metric, comparison.target, run.target_status),
            *(getattr(run.to_target, name, None) for name in _REACHED.values()),
            *_of_metrics(run, _VALUE_RATIOS),
            *(getattr(run.ratio_to_best, name) for name in _RATIOS),
            *(run.params.get(name) for name in parameters),
        ]
        for run in comparison.runs
    ]
    return csv_text.table([*header, *parameters], rows)


def _named(columns: dict[str, str]) -> list[str]:
    return [form.format(metric) for metric in METRICS for form in columns]


def _of_metrics(run: ComparedRun, columns: dict[str, str]) -> list[object]:
    absent = Measure(final=None, best=None)
    return [
        getattr(run.measures.get(metric, absent), field)
        for metric in METRICS
        for field in columns.values()
    ]
