"""What a comparison looks like at a terminal."""

import io

import pytest
from rich.console import Console

from mlhf_service.cli.tables import loss_form, print_comparison


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
