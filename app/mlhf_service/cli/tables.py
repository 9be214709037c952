"""Tables for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlhf_service.client.client import Json
from mlhf_service.runs.metrics import label

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
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("optimizer", overflow="fold", min_width=9)
    loss, accuracy = comparison["loss_metric"], comparison["accuracy_metric"]
    table.add_column("seeds", justify="right", no_wrap=True)
    for metric in (loss, accuracy):  # a word a line: 80 columns must do
        heading = f"final {label(metric)}".replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True)
    for name in ("samples*", "seconds*", "CPU s*"):
        table.add_column(name, justify="right", no_wrap=True)
    groups = comparison["groups"]
    finals = [_mean(group["final_loss"]) for group in groups]
    efforts = [
        ([(group["to_target"] or {}).get(name) for group in groups], form)
        for name, form in (("samples", ",.0f"), ("wall_seconds", ".2f"), ("cpu_seconds", ".2f"))
    ]
    for i, (group, final) in enumerate(zip(groups, finals, strict=True)):
        table.add_row(
            Text(group["label"]),
            str(group["n"]) + (f"\n{len(group['run_ids'])} runs" if group["repeats"] else ""),
            _best(_spread(group["final_loss"], loss_form(final)), final, finals),
            _spread(group["final_accuracy"], ".3f"),
            *(
                _best(_reached(bands[i], form), _mean(bands[i]), [_mean(b) for b in bands])
                for bands, form in efforts
            ),
        )
    console.print(table)
    if target is None:
        console.print("* to a target: none was given.")
    else:
        console.print(
            f"* until the {label(comparison['metric'])} first reached {target:g}, training only; "
            "CPU s: of all threads."
        )
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
    spread = f"\n± {band['std']:{form}}" if band["std"] is not None else ""
    return f"{band['mean']:{form}}{spread}{_so_far(band)}"


def _reached(band: Json | None, form: str) -> str:
    """What the target took, of those seeds that have reached it while none has missed it."""
    if band is None:
        return NONE
    if band["mean"] is not None:
        return f"{band['mean']:{form}}{_so_far(band)}"
    seeds = band["n"] + band["missing"] + band["unfinished"]
    if band["missing"]:
        return f"missed\n({band['missing']}/{seeds})"
    return f"unfinished\n({band['unfinished']}/{seeds})" if band["unfinished"] else NONE


def _so_far(band: Json) -> str:
    return f"\n{band['n']}/{band['n'] + band['unfinished']} so far" if band["unfinished"] else ""


def _best(text: str, value: float | None, values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"[bold]{text}[/bold]" if value is not None and value == min(known) else text
