"""Tables for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlhf_service.client.client import Json

NONE = "–"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def print_dataset(dataset: Json, console: Console | None = None) -> None:
    """The id of an upload, its shapes, and what was understood of its files."""
    console = console or Console()
    info, report = dataset["info"], dataset["report"] or {}
    shape = "×".join(map(str, info["input_shape"]))

    def line(*parts: object) -> None:
        console.print(*parts, markup=False, highlight=False, soft_wrap=True)

    line(dataset["id"], dataset["name"])
    line(f"{info['kind']} inputs of {shape}; {info['task']} with {info['outputs']} outputs")
    for split in report.get("splits", ()):
        line(f"{split['name']}: {split['samples']} samples, {split['source']}")
    if report.get("columns"):
        table = Table("column", "role", "type", "inputs", "missing", "why", box=SIMPLE)
        for column in report["columns"]:
            keys = ("name", "role", "type", "inputs", "missing", "why")
            table.add_row(*(Text(str(column[key])) for key in keys))
        console.print(table)
    if report.get("classes"):
        table = Table("class", "train", "test", box=SIMPLE)
        for each in report["classes"]:
            table.add_row(Text(each["name"]), str(each["train"]), str(each["test"]))
        console.print(table)
    if report.get("dropped_rows"):
        line(f"{report['dropped_rows']} rows were dropped")
    for heading in ("guessed", "converted", "ignored"):
        for note in report.get(heading, ()):
            line(f"{heading}: {note}")


def print_comparison(comparison: Json, console: Console | None = None) -> None:
    """A line for each group of seeds: final loss, and the cost of the target; the best in bold."""
    console = console or Console()
    target = comparison["target"]
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("optimizer")
    for name in ("seeds", "final loss", "accuracy", "samples*", "seconds*"):
        table.add_column(name, justify="right", no_wrap=True)
    groups = comparison["groups"]
    finals = [_mean(g["final_loss"]) for g in groups]
    samples = [_mean(g["to_target"]["samples"]) if g["to_target"] else None for g in groups]
    seconds = [_mean(g["to_target"]["wall_seconds"]) if g["to_target"] else None for g in groups]
    for group, final, sample, second in zip(groups, finals, samples, seconds, strict=True):
        missed = group["to_target"]["missed"] if group["to_target"] else 0
        table.add_row(
            group["label"],
            str(group["n"]),
            _best(_spread(group["final_loss"], loss_form(final)), final, finals),
            _spread(group["final_accuracy"], ".3f"),
            _best(_reached(sample, missed, group["n"], ",.0f"), sample, samples),
            _best(_reached(second, missed, group["n"], ".2f"), second, seconds),
        )
    console.print(table)
    metric = comparison["metric"].replace("_", " ")
    if target is None:
        console.print("* to a target: none was given.")
    else:
        console.print(f"* until the {metric} first reached {target:g}, training time only.")
    for warning in comparison["warnings"]:
        console.print(f"[yellow]note:[/yellow] {warning['message']}")


def loss_form(loss: float | None) -> str:
    """Return the format of a loss: four decimals, or two digits where those would show less."""
    return ".4f" if loss is None or abs(loss) >= 0.01 else ".1e"


def _mean(band: Json | None) -> float | None:
    return band["mean"] if band else None


def _spread(band: Json | None, form: str) -> str:
    if not band or band["mean"] is None:
        return NONE
    spread = f" ± {band['std']:{form}}" if band["std"] is not None else ""
    return f"{band['mean']:{form}}{spread}"


def _reached(mean: float | None, missed: int, runs: int, form: str) -> str:
    if mean is not None:
        return f"{mean:{form}}"
    return f"missed ({missed}/{runs})" if missed else NONE


def _best(text: str, value: float | None, values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"[bold]{text}[/bold]" if value is not None and value == min(known) else text
