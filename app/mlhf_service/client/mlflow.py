"""Mirror runs to an MLflow server, by its public REST API.

A run is found again by the tag ``mlhf.run_id``, and goes on behind the tag ``mlhf.step``: to
mirror it twice, or from two places one after the other, writes no point twice.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from mlhf_service.client.errors import Json, ServiceError
from mlhf_service.client.exchange import part
from mlhf_service.client.records import Run

if TYPE_CHECKING:
    from mlhf_service.client.client import Client

RUN_ID, STEP = "mlhf.run_id", "mlhf.step"
STATUSES = {
    "queued": "SCHEDULED",
    "paused": "SCHEDULED",
    "running": "RUNNING",
    "succeeded": "FINISHED",
    "failed": "FAILED",
    "cancelled": "KILLED",
}
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # of a batch, as MLflow limits it
_LONGEST_VALUE = 6000  # characters of a parameter
MOST_POINTS = 2000  # of each metric at a time
_ENDED = ("FINISHED", "FAILED", "KILLED")


class Mlflow:
    """A connection to an MLflow server; every method raises ServiceError.

    Args:
        address: The server's, such as ``http://127.0.0.1:5000``. ``MLFLOW_TRACKING_TOKEN``, or
            ``MLFLOW_TRACKING_USERNAME`` and ``_PASSWORD``, authenticate as for MLflow's own client.
        experiment: Where runs are put; by the name of each run's project when absent.
    """

    def __init__(self, address: str, experiment: str | None = None, timeout: float = 30.0) -> None:
        self.address = address.rstrip("/")
        self._experiment = experiment
        self._experiments: dict[str, str] = {}
        try:
            self._http = httpx.Client(
                base_url=f"{self.address}/api/2.0/mlflow", timeout=timeout, **_credentials()
            )
        except httpx.InvalidURL as error:
            raise ServiceError(f"{address} is not an address: {error}") from None

    def __enter__(self) -> "Mlflow":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def mirror(self, client: "Client", run: Run) -> str:
        """Write what MLflow does not have yet of a run of a service; returns its id there."""
        return self.write(run, lambda after: _points(client, run, after))

    def write(self, run: Run, points: Callable[[int | None], Iterable[Mapping[str, str]]]) -> str:
        """Write what MLflow does not have yet of a run; returns its id there.

        Args:
            points: Gives the run's points behind a step, or all, as rows of its curves' CSV.
        """
        found = self._find(run) or self._create(run)
        info, tags = found["info"], _by_key(found.get("data", {}).get("tags", []))
        run_id = str(info["run_id"])
        last = int(tags[STEP]) if STEP in tags else None
        status = STATUSES[run.status]
        if info.get("status") in _ENDED and info["status"] == status:
            return run_id
        rows = sorted(points(last), key=lambda row: int(row["step"]))
        for batch, step in _batches(rows, _time(run.started_at)):
            self._call(
                "POST",
                "runs/log-batch",
                {"run_id": run_id, "metrics": batch, "tags": [{"key": STEP, "value": str(step)}]},
            )
        change: Json = {"run_id": run_id, "status": status}
        if run.finished_at is not None:
            change["end_time"] = _time(run.finished_at)
        self._call("POST", "runs/update", change)
        return run_id

    def check(self) -> None:
        """Ask for nothing in particular. Raises ServiceError where MLflow does not answer."""
        self._call("POST", "experiments/search", {"max_results": 1})

    def _find(self, run: Run) -> Json | None:
        wanted = {
            "experiment_ids": [self._experiment_of(run)],
            "filter": f"tags.`{RUN_ID}` = '{run.id}'",
            "max_results": 1,
        }
        runs: list[Json] = self._call("POST", "runs/search", wanted).get("runs", [])
        return runs[0] if runs else None

    def _create(self, run: Run) -> Json:
        tags = {RUN_ID: run.id, "mlhf.job_id": run.job_id, "mlflow.runName": run.name}
        tags |= {f"mlhf.tag.{key}": value for key, value in run["tags"].items()}
        wanted = {
            "experiment_id": self._experiment_of(run),
            "run_name": run.name,
            "start_time": _time(run.started_at or run.created_at),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        made: Json = self._call("POST", "runs/create", wanted)["run"]
        params = {
            "optimizer": run.optimizer,
            "model": run.model,
            "dataset": run["dataset_name"],
            **run["params"],
        }
        listed = [
            {"key": _key(name), "value": _text(value)}
            for name, value in params.items()
            if value is not None
        ]
        for first in range(0, len(listed), _MOST_PARAMS):
            batch = listed[first : first + _MOST_PARAMS]
            self._call(
                "POST", "runs/log-batch", {"run_id": made["info"]["run_id"], "params": batch}
            )
        return made

    def _experiment_of(self, run: Run) -> str:
        name = self._experiment or f"mlhf/{run.get('project') or 'default'}"
        if name not in self._experiments:
            known = self._call(
                "GET", "experiments/get-by-name", {"experiment_name": name}, absent=True
            )
            made = known.get("experiment") or self._call(
                "POST", "experiments/create", {"name": name}
            )
            self._experiments[name] = str(made["experiment_id"])
        return self._experiments[name]

    def _call(self, method: str, path: str, body: Json, absent: bool = False) -> Json:
        given: Json = {"params": body} if method == "GET" else {"json": body}
        try:
            answer = self._http.request(method, path, **given)
            found = answer.json() if answer.content else {}
        except httpx.HTTPError as error:
            raise ServiceError(f"no answer from MLflow at {self.address} ({error})") from None
        except ValueError:
            raise ServiceError(
                f"{self.address} answers {answer.status_code}, but not as MLflow does"
            ) from None
        if not isinstance(found, dict):
            raise ServiceError(f"{self.address} answers, but not as MLflow does")
        if absent and answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        if answer.is_error:
            said = found.get("message") or answer.reason_phrase
            raise ServiceError(f"MLflow refused {path}: {said}", answer.status_code)
        return found


def _credentials() -> Json:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"headers": {"Authorization": f"Bearer {token}"}}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return {"auth": (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))} if user else {}


def _points(client: "Client", run: Run, after: int | None) -> Iterator[Mapping[str, str]]:
    """The points of a run behind a step."""
    wanted: Json = {"format": "csv", "max_points": MOST_POINTS}
    if after is not None:
        wanted["min_step"] = after + 1
    answer = client.request("GET", f"/v1/runs/{part(run.id)}/curves", params=wanted)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    yield from rows


def _batches(points: Iterable[Mapping[str, str]], started: int) -> Iterator[tuple[list[Json], int]]:
    """Metrics as a batch takes them, and the last step that is written whole with each."""
    batch: list[Json] = []
    last = 0
    for row in points:
        step = int(row["step"])
        if len(batch) >= _MOST_METRICS - 200 and step != last:
            yield batch, last
            batch = []
        last = step
        value = float(row["value"])
        batch.append(
            {
                "key": _key(row["metric"]),
                "value": value if abs(value) < float("inf") else _name(value),
                "timestamp": started + round(1000 * float(row["wall_seconds"])),
                "step": step,
            }
        )
    if batch:
        yield batch, last


def _name(value: float) -> str:
    """As JSON of protocol buffers writes what is no number of JSON."""
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _by_key(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in tags}


def _key(name: str) -> str:
    """A name with the characters that MLflow allows."""
    return "".join(c if c.isalnum() or c in "_-. /:" else "_" for c in name)[:250]


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _time(at: str | None) -> int:
    """Milliseconds since 1970."""
    return 0 if at is None else round(1000 * datetime.fromisoformat(at).timestamp())
