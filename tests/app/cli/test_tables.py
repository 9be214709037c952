"""What a comparison and an upload look like at a terminal."""

import io

import pytest
from rich.console import Console

from mlhf_service.cli.tables import loss_form, print_comparison, print_dataset


@pytest.mark.parametrize(
    ("loss", "shown"),
    [(2.3026, "2.3026"), (0.01, "0.0100"), (0.000432, "4.3e-04"), (3.1e-9, "3.1e-09")],
)
def test_a_loss_is_never_shown_as_zeros(loss, shown):
    assert f"{loss:{loss_form(loss)}}" == shown


def test_a_small_final_loss_can_be_told_from_another():
    groups = [
        {
            "label": label,
            "n": 2,
            "final_loss": {"mean": mean, "std": mean / 10},
            "final_accuracy": None,
            "to_target": None,
        }
        for label, mean in (("soap", 7.3e-5), ("mlhf", 2.4e-5), ("adamw", 0.0936))
    ]
    out = io.StringIO()
    comparison = {"target": None, "metric": "train_loss", "groups": groups, "warnings": []}
    print_comparison(comparison, Console(file=out, width=100))
    for shown in ("7.3e-05 ± 7.3e-06", "2.4e-05 ± 2.4e-06", "0.0936 ± 0.0094"):
        assert shown in out.getvalue()


def test_an_upload_is_shown_with_what_was_understood() -> None:
    out = io.StringIO()
    column = {
        "name": "[red]price",
        "role": "input",
        "type": "number",
        "inputs": 1,
        "missing": 2,
        "why": "all values are numbers",
    }
    dataset = {
        "id": "ds_1",
        "name": "[b]mine",
        "info": {"kind": "table", "input_shape": [3], "task": "classification", "outputs": 2},
        "report": {
            "columns": [column],
            "classes": [{"name": "yes", "train": 7, "test": 3}],
            "splits": [{"name": "train", "samples": 8, "source": "t.csv"}],
            "dropped_rows": 2,
            "converted": ["price: decimal commas"],
        },
    }
    console = Console(file=out, width=100)
    print_dataset(dataset, console)
    shown = out.getvalue()
    for part in ("ds_1 [b]mine", "[red]price", "all values are numbers", "train: 8 samples, t.csv"):
        assert part in shown
    for part in ("yes", "2 rows were dropped", "converted: price: decimal commas"):
        assert part in shown
    print_dataset({**dataset, "report": None}, console)  # of an earlier version
