"""Tables for a terminal."""

import os
import re
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlhf_service.client.errors import Json
from mlhf_service.runs.metrics import label

NONE = "–"
_WORD = 16  # characters; what is not longer is not broken
_STACKED_FROM = 2  # columns
_WIDEST = 10_000  # characters of a line in a file or a pipe


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console | None = None
) -> None:
    """Print rows. Ids and numbers are never cut off or broken; longer texts wrap.

    Into a file or a pipe lines are as long as it takes. At a terminal too narrow for them, a row
    becomes a block of lines, one a column.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    least = [
        width if number == 0 or _is_atomic(cells, number) else min(width, _longest_word(texts))
        for number, (width, *texts) in enumerate(zip(widths, columns, *cells, strict=True))
    ]
    console = console or Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = sum(widths) + len(widths)
    if sum(least) + len(least) > console.width and len(columns) > _STACKED_FROM:
        _print_stacked(console, columns, cells)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        keep = number == 0 or _is_atomic(cells, number)
        table.add_column(column, no_wrap=keep, min_width=least[number], overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # a name is no markup
    console.print(table)


def _is_atomic(cells: Sequence[Sequence[str]], column: int) -> bool:
    return all(re.fullmatch(r"[a-z]{2,4}_[0-9a-z_]{6,36}", row[column]) for row in cells)


def _longest_word(texts: Sequence[str]) -> int:
    """So wide a column must be for no word of it to be broken; long ones are, at _WORD."""
    words = [len(word) for text in texts for word in text.split()]
    return min(_WORD, max(words, default=0))


def _print_stacked(
    console: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]
) -> None:
    width = max(map(len, columns[1:]))
    for row in cells:
        console.print(Text(row[0]), soft_wrap=True)
        for column, cell in zip(columns[1:], row[1:], strict=True):
            console.print(Text(f"  {column:{width}}  {cell}"), soft_wrap=True)


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
        table = Table(box=SIMPLE)
        for heading in ("column", "role", "type", "inputs", "missing", "why"):
            table.add_column(heading, overflow="fold")
        for column in report["columns"]:
            keys = ("name", "role", "type", "inputs", "missing", "why")
            table.add_row(*(Text(str(column[key])) for key in keys))
        _print_whole(console, table)
    if report.get("classes"):
        table = Table("class", "train", "test", box=SIMPLE)
        for each in report["classes"]:
            table.add_row(Text(each["name"]), str(each["train"]), str(each["test"]))
        _print_whole(console, table)
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
    _print_whole(console, table)
    if target is None:
        console.print("* to a target: none was given.")
    else:
        console.print(
            f"* until the {label(comparison['metric'])} first reached {target:g}, training only; "
            "CPU s: of all threads."
        )
    for warning in comparison["warnings"]:
        console.print(f"[yellow]note:[/yellow] {warning['message']}")


def _print_whole(console: Console, table: Table) -> None:
    """Print a table of which nothing is cut: as wide as it takes where no terminal sets a width."""
    needed = console.measure(table, options=console.options.update(width=_WIDEST))
    piped = not console.is_terminal and "COLUMNS" not in os.environ
    console.width = max(console.width, needed.maximum if piped else needed.minimum)
    console.print(table)


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
    # A line each: "so far" behind it would be too wide for 80 columns.
    return f"\n{band['n']}/{band['n'] + band['unfinished']}\nso far" if band["unfinished"] else ""


def _best(text: str, value: float | None, values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"[bold]{text}[/bold]" if value is not None and value == min(known) else text
