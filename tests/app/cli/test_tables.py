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
        _group(label, final_loss=_band(mean, mean / 10))
        for label, mean in (("soap", 7.3e-5), ("mlhf", 2.4e-5), ("adamw", 0.0936))
    ]
    shown = _comparison(groups)
    for part in ("7.3e-05 ", "± 7.3e-06", "2.4e-05 ", "± 2.4e-06", "0.0936 ", "± 0.0094"):
        assert part in shown


def _band(mean=None, std=None, n=2, missing=0, unfinished=0):
    return {"mean": mean, "std": std, "n": n, "missing": missing, "unfinished": unfinished}


def _group(label, runs=2, **fields):
    empty = {"final_loss": _band(), "final_accuracy": None, "to_target": None, "repeats": 0}
    return {"label": label, "n": 2, "run_ids": ["run"] * runs, **empty, **fields}


def _terminal(out, width=80):
    """A terminal of this width without colours."""
    return Console(file=out, width=width, force_terminal=True, color_system=None)


def _comparison(groups, target=None, console=_terminal):
    out = io.StringIO()
    comparison = {
        "target": target,
        "metric": "train_loss",
        "loss_metric": "train_loss",
        "accuracy_metric": "test_accuracy",
        "groups": groups,
        "warnings": [],
    }
    print_comparison(comparison, console(out))
    return out.getvalue()


def _efforts(**band):
    names = ("samples", "wall_seconds", "cpu_seconds")
    return {name: _band(**band) for name in names}


@pytest.mark.parametrize(
    ("band", "shown"),
    [
        ({"mean": 150.0}, "150 "),
        ({"mean": 150.0, "n": 1, "unfinished": 1}, "1/2 "),
        ({"n": 0, "unfinished": 2}, "unfinished"),
        ({"n": 1, "missing": 1}, "(1/2)"),
        ({"n": 0, "missing": 1, "unfinished": 1}, "(1/2)"),
    ],
)
def test_what_a_target_took_is_told_as_far_as_it_is_known(band, shown):
    assert shown in _comparison([_group("adam", to_target=_efforts(**band))], target=0.1)


def _piped(out):
    return Console(file=out)


@pytest.mark.parametrize("console", [_terminal, _piped, lambda out: _terminal(out, 50)])
def test_no_number_of_a_comparison_is_cut(console, monkeypatch):
    """Neither at 80 columns, nor where there are fewer, nor in a pipe, where there is no width."""
    monkeypatch.delenv("COLUMNS", raising=False)
    loss = {"mean": 0.0535, "std": 0.0123, "n": 1, "missing": 0, "unfinished": 1}
    efforts = {
        name: _band(value, unfinished=1, n=1)
        for name, value in (("samples", 123456.0), ("wall_seconds", 6543.21), ("cpu_seconds", 9.87))
    }
    label = "momentum lr=0.003 schedule=cosine"
    group = _group(label, final_loss=loss, final_accuracy=loss, to_target=efforts)
    shown = _comparison([group], target=0.1, console=console)
    assert "…" not in shown
    for part in ("0.0535", "± 0.0123", "0.053", "123,456", "6543.21", "9.87"):
        assert part in shown, part
    assert shown.count("1/2") == shown.count("so far") == 5
    if console is _piped:
        assert label in shown, "nor is a label broken where lines may be long"


def test_a_comparison_names_splits_seeds_and_repeats():
    shown = _comparison([_group("adam", runs=3, repeats=1), _group("[b]odd")])
    for part in ("train", "loss", "test", "accuracy", "CPU s*", "3 runs", "[b]odd"):
        assert part in shown


def test_an_upload_is_shown_with_what_was_understood() -> None:
    out = io.StringIO()
    column = {
        "name": "[red]price_of_all_that_was_sold_in_the_last_twelve_months",
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
    console = Console(file=out, width=200)
    print_dataset(dataset, console)
    shown = out.getvalue()
    for part in (
        "ds_1 [b]mine",
        column["name"],
        "all values are numbers",
        "train: 8 samples, t.csv",
    ):
        assert part in shown
    for part in ("yes", "2 rows were dropped", "converted: price: decimal commas"):
        assert part in shown
    print_dataset({**dataset, "report": None}, console)  # of an earlier version
