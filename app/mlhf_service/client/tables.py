"""Answers as pandas, NumPy, a table in a notebook, or a figure. Each is imported when used."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from mlhf_service.client.errors import ServiceError
from mlhf_service.client.records import Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


# What the axes of a figure are called.
_AXES = {
    "samples": "samples",
    "steps": "steps",
    "epochs": "epochs",
    "wall_seconds": "training time (s)",
    "cpu_seconds": "CPU time of training (s)",
}


def frame(records: list[Any]) -> "pd.DataFrame":
    """Records as rows: nested fields become columns, ``summary.M.last`` becomes ``M``."""
    pandas = _pandas()
    table = pandas.json_normalize([dict(one) for one in records])

    def column(name: str) -> str:
        first, _, rest = name.partition(".")
        if first == "summary" and "." in rest:
            metric, _, what = rest.rpartition(".")
            return metric if what == "last" else f"{what}_{metric}"
        return name

    return table.rename(columns=column)


class Curves(Mapping[str, tuple[Any, Any]]):
    """Curves of one run by metric: each a pair of NumPy arrays, places on the axis and values."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.run_id: str = answer["run_id"]
        self.x: str = answer["x"]
        self._points = {one["metric"]: one["points"] for one in answer["series"]}

    def __getitem__(self, metric: str) -> tuple[Any, Any]:
        import numpy as np

        points = np.array([(x, float(y)) for x, y in self._points[metric]], dtype=np.float64)
        points = points.reshape(-1, 2)
        return points[:, 0], points[:, 1]

    def __iter__(self) -> Any:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def to_pandas(self) -> "pd.DataFrame":
        """A column a metric, a row a place on the axis; NaN where one was not measured."""
        columns = {
            name: _pandas().Series(values, index=x).groupby(level=0).last()
            for name in self
            for x, values in [self[name]]
        }
        table = _pandas().DataFrame(columns).sort_index()
        table.index.name = self.x
        return table

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} ({len(points)})" for name, points in self._points.items())
        return f"<Curves of {self.run_id} by {self.x}: {sizes}>"


class Comparison(Record):
    """Runs beside each other. Prints as a table; in a notebook as an HTML table."""

    metric: str
    loss_metric: str
    accuracy_metric: str
    target: float | None
    runs: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    warnings: list[dict[str, Any]]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each group of runs that differ only in their seed."""
        return [self._row(group) for group in self["groups"]]

    def _row(self, group: Mapping[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {"optimizer": group["label"], "seeds": group["n"]}
        for field, name in (("final_loss", "loss_metric"), ("final_accuracy", "accuracy_metric")):
            band = group[field]
            row[f"final_{self[name]}"] = band["mean"]
            row[f"final_{self[name]}_std"] = band["std"]
        reached = group["to_target"]
        if reached is not None:
            for effort in ("samples", "wall_seconds"):
                row[f"{effort}_to_target"] = reached[effort]["mean"]
        elif group["curve"]["wall_seconds"]:
            row["wall_seconds"] = group["curve"]["wall_seconds"][-1]
        return row

    def to_pandas(self) -> "pd.DataFrame":
        """A row for each group of runs that differ only in their seed."""
        return _pandas().DataFrame(self.rows())

    def runs_to_pandas(self) -> "pd.DataFrame":
        """A row for each run."""
        return frame(self["runs"])

    def plot(self, x: str = "samples", ax: "Axes | None" = None) -> "Axes":
        """Draw the compared metric: the mean over seeds, and its range as a band.

        Args:
            x: ``samples``, ``steps``, ``epochs``, ``wall_seconds`` or ``cpu_seconds``.
            ax: Where to draw; new axes when absent.
        """
        if x not in _AXES:
            raise ValueError(f"x={x!r} is no axis; there are {', '.join(_AXES)}")
        try:
            import matplotlib.pyplot as plt
        except ModuleNotFoundError:
            raise ServiceError("plot needs matplotlib: pip install matplotlib") from None
        if ax is None:
            ax = plt.subplots()[1]
        for group in self["groups"]:
            curve = group["curve"]
            places = [_number(v) for v in curve[x]]
            (line,) = ax.plot(places, [_number(v) for v in curve["mean"]], label=group["label"])
            if group["n"] > 1:
                low, high = ([_number(v) for v in curve[name]] for name in ("min", "max"))
                ax.fill_between(places, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
        if self["target"] is not None:
            ax.axhline(self["target"], color="0.5", linestyle=":", linewidth=1)
        means = [v for g in self["groups"] for v in g["curve"]["mean"] if v is not None]
        if "loss" in self["metric"] and means and min(means) > 0:
            ax.set_yscale("log")
        ax.set_xlabel(_AXES[x])
        ax.set_ylabel(_words(self["metric"]))
        ax.set_title(self._title())
        ax.legend()
        return ax

    def _title(self) -> str:
        """What all runs share, as the service's own figures have it."""
        shared = [
            names.pop()
            for key in ("model", "dataset_name")
            if len(names := {run[key] for run in self["runs"]}) == 1
        ]
        metric = _words(self["metric"])
        return f"{metric}: {' on '.join(shared)}" if shared else metric

    def _table(self) -> tuple[list[str], list[list[str]], dict[str, float | None]]:
        rows = self.rows()
        columns = [c for c in rows[0] if not c.endswith("_std")] if rows else []
        best: dict[str, float | None] = {}
        for column in columns[2:]:
            known = [row[column] for row in rows if row[column] is not None]
            choose = max if column.endswith("accuracy") else min
            best[column] = choose(known) if known else None
        cells = [[_cell(row, column) for column in columns] for row in rows]
        return columns, cells, best

    def __repr__(self) -> str:
        columns, cells, _ = self._table()
        heads = [_words(column) for column in columns]
        widths = [max(map(len, each)) for each in zip(heads, *cells, strict=True)]
        lines = [
            "  ".join(
                text.ljust(width) if i == 0 else text.rjust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [heads, *cells]
        ]
        return "\n".join([*lines, *(f"! {w['message']}" for w in self["warnings"])])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        columns, cells, best = self._table()
        heads = "".join(f"<th>{escape(_words(c))}</th>" for c in columns)
        body = ""
        for row, texts in zip(self.rows(), cells, strict=True):
            body += "<tr>"
            for column, text in zip(columns, texts, strict=True):
                is_best = row[column] is not None and best.get(column) == row[column]
                shown = escape(text)
                body += f"<td>{f'<b>{shown}</b>' if is_best else shown}</td>"
            body += "</tr>"
        notes = "".join(f"<li>{escape(w['message'])}</li>" for w in self["warnings"])
        target = f", target {self['target']:g}" if self["target"] is not None else ""
        caption = f"<caption>{escape(_words(self['metric']))}{target}</caption>"
        table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        return table + (f"<ul>{notes}</ul>" if notes else "")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(row: Mapping[str, Any], column: str) -> str:
    value, std = row[column], row.get(f"{column}_std")
    if value is None:
        return "–"
    if isinstance(value, str | int):
        return str(value)
    text = f"{value:,.0f}" if column.startswith("samples") else f"{value:.4g}"
    return f"{text} ± {std:.2g}" if std is not None else text


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise ServiceError("to_pandas needs pandas: pip install pandas") from None
    return pandas
