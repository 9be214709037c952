"""Tables of a report, to be read and to be computed with."""

import csv as csv_format
import io
from collections.abc import Sequence
from pathlib import Path

from engine.experiments.statistics import Row


def markdown(path: Path, title: str, rows: Sequence[Row], note: str = "") -> Path:
    """Write rows with the same columns as a Markdown table under a title; return the path."""
    columns = list(rows[0])
    lines = [f"# {title}", ""]
    lines.append("| " + " | ".join(columns) + " |")
    lines.append("|" + "---|" * len(columns))
    lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in rows]
    if note:
        lines += ["", note]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def csv(path: Path, rows: Sequence[Row]) -> Path:
    """Write the same rows as CSV; return the path."""
    out = io.StringIO()
    writer = csv_format.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")
    return path
