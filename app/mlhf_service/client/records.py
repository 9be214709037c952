"""What the service tells of its jobs, runs and data sets, as typed objects.

Each is the JSON object that the API gives, a ``dict``, whose fields are attributes too.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
# By the field's name: as totals call it, and as the progress of a run that trains.
_TOTALS = {
    "seconds": ("wall_seconds",),
    "cpu_seconds": ("cpu_seconds",),
    "steps": ("steps", "step"),
    "samples": ("samples",),
    "epochs": ("epochs", "epoch"),
}
TERMINAL = ("succeeded", "failed", "cancelled")


class Record(dict[str, Any]):
    """A JSON object whose fields can be read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__} has no {name!r}; it has {', '.join(map(str, self))}"
            ) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *map(str, self)]


class Job(Record):
    """A job: what was asked for, and how far it is."""

    id: str
    kind: str
    name: str
    status: Status
    tags: dict[str, str]
    run_ids: list[str]
    runs: dict[str, int]
    progress: dict[str, Any]
    error: dict[str, Any] | None
    spec: dict[str, Any]
    created_at: str
    started_at: str | None
    finished_at: str | None

    @property
    def ended(self) -> bool:
        return self["status"] in TERMINAL

    def __repr__(self) -> str:
        return _short(self, f"{self['status']}, {sum(self['runs'].values())} runs")


class Run(Record):
    """One training, or meta-training."""

    id: str
    job_id: str
    name: str
    status: Status
    model: str
    dataset: str
    optimizer: str
    seed: int
    summary: dict[str, dict[str, Any]] | None
    totals: dict[str, Any] | None
    progress: dict[str, Any] | None
    diverged_at: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: str
    started_at: str | None
    finished_at: str | None

    def last(self, metric: str) -> float | None:
        """The last value of a metric, such as ``test_accuracy``; None if it was not measured."""
        value = ((self["summary"] or {}).get(metric) or {}).get("last")
        return None if value is None else float(value)

    def best(self, metric: str) -> float | None:
        """The best value of a metric; None if there is none."""
        value = ((self["summary"] or {}).get(metric) or {}).get("best")
        return None if value is None else float(value)

    def value(self, field: str) -> Any:
        """What a run has of a field of the query language; None if nothing.

        Args:
            field: As filters and ``sort`` write it: ``optimizer.lr``, ``test_loss.best``,
                ``seconds``, ``tags.team``, ``status``.
        """
        name = field.removesuffix(".last")
        summary, totals = self["summary"] or {}, self["totals"] or self["progress"] or {}
        if name.startswith("tags."):
            return self["tags"].get(name.removeprefix("tags."))
        if name == "dataset":
            return self["dataset_name"]
        if name.removesuffix(".best") in summary:
            metric = name.removesuffix(".best")
            return summary[metric].get("best" if name != metric else "last")
        if name in _TOTALS:
            return next((totals[key] for key in _TOTALS[name] if key in totals), None)
        return self["params"].get(name, self.get(name))

    def __repr__(self) -> str:
        return _short(self, str(self["status"]))


class Dataset(Record):
    """A data set, built in or uploaded; a job takes it as its ``dataset``."""

    id: str
    name: str
    format: str
    info: dict[str, Any] | None
    report: dict[str, Any] | None

    def __repr__(self) -> str:
        return _short(self, str(self["format"]))


class Predictions(Record):
    """What a model predicts, a value a row.

    Attributes:
        predictions: A class's index, a list of labels, or values of a regression.
        names: The names of the classes predicted, where the data set names its classes.
    """

    run_id: str
    task: str
    predictions: list[Any]
    names: list[str] | None

    @property
    def labels(self) -> list[Any]:
        """Names of classes where there are names, else the predictions."""
        return self["predictions"] if self["names"] is None else list(self["names"])

    def to_numpy(self) -> Any:
        """The predictions as an array, a row a sample."""
        import numpy as np

        return np.array(self["predictions"])

    def to_pandas(self) -> Any:
        """A column ``prediction``, and ``name`` where the classes have names."""
        import pandas as pd

        table = pd.DataFrame({"prediction": self["predictions"]})
        return table if self["names"] is None else table.assign(name=self["names"])

    def __repr__(self) -> str:
        return f"<Predictions of {self['run_id']}: {len(self['predictions'])} rows>"


def _short(record: Record, more: str) -> str:
    return f"<{type(record).__name__} {record.get('id')} {record.get('name')!r}: {more}>"


def identity(what: str | Mapping[str, Any]) -> str:
    """The id of a record, or the id itself."""
    return what if isinstance(what, str) else str(what["id"])


def identities(what: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]) -> list[str]:
    """The ids of one or many."""
    if isinstance(what, str | Mapping):
        return [identity(what)]
    return [identity(one) for one in what]
