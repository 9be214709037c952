"""Tables of a report, to be read and to be computed with."""

import csv as csv_format
import io
from collections.abc import Sequence
from pathlib import Path

from mlhf.ablation.statistics import Row


def markdown(path: Path, title: str, rows: Sequence[Row], note: str = "") -> Path:
    """Write rows with the same columns as a Markdown table under a title; return the path."""
    path.write_text(markdown_text(title, rows, note), encoding="utf-8")
    return path


def csv(path: Path, rows: Sequence[Row]) -> Path:
    """Write the same rows as CSV; return the path."""
    path.write_text(csv_text(rows), encoding="utf-8")
    return path


def markdown_text(title: str, rows: Sequence[Row], note: str = "") -> str:
    """Return what ``markdown`` writes."""
    columns = list(rows[0])
    lines = [f"# {title}", ""]
    lines.append("| " + " | ".join(columns) + " |")
    lines.append("|" + "---|" * len(columns))
    lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in rows]
    if note:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Return what ``csv`` writes."""
    out = io.StringIO()
    writer = csv_format.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
