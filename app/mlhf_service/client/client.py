"""A client of a running service, for Python and for the command line."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from httpx_sse import connect_sse

from mlhf_service.client import networks, operations
from mlhf_service.client.errors import Json, ServiceError, refusal
from mlhf_service.client.exchange import (
    Exchange,
    Operation,
    Request,
    address_of_service,
    key_headers,
    part,
)
from mlhf_service.client.job_files import placed
from mlhf_service.client.logger import RunLogger, hardware
from mlhf_service.client.operations import What
from mlhf_service.client.pages import Pages
from mlhf_service.client.progress import Bar
from mlhf_service.client.receiving import Receiving
from mlhf_service.client.records import Dataset, Job, Predictions, Record, Run, identity
from mlhf_service.client.sending import Sending
from mlhf_service.client.specs import specification
from mlhf_service.client.tables import Comparison, Curves
from mlhf_service.client.uploads import Upload, event_files, files_of

T = TypeVar("T")
_FILE_SECONDS = 300.0
_MOST_LOST = 10  # connections in a row


class Client(Sending, Receiving):
    """A connection to the service at ``url``; every method raises ServiceError.

    Args:
        url: The service's address; the environment's ``MLHF_URL``, or that of a service on this
            machine, where none is given.
        timeout: Seconds to wait for an answer, longer for files and streams.
        key: A key of the service, or ``@`` and the file that holds one; the environment's
            ``MLHF_KEY`` where none is given.
        retries: How often a request that does no harm twice is sent again, where there was no
            answer or the service was busy. Jobs are made once, however often they are sent.

    Example:
        >>> client = Client("http://127.0.0.1:8000")
        >>> data = client.upload("flowers.csv", target="species")
        >>> job = client.submit(model="mlp", dataset=data, optimizers=["adam", "hf_adam"], epochs=5)
        >>> print(client.compare(client.watch(job)))
    """

    def __init__(
        self,
        url: str | None = None,
        timeout: float = 30.0,
        key: str | None = None,
        retries: int = 2,
    ) -> None:
        self.url = address_of_service(url)
        self._exchange = Exchange(self.url, retries)
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout, headers=key_headers(key))
        except httpx.InvalidURL as error:
            raise ServiceError(f"{self.url} is not an address: {error}") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _carry_out(self, operation: Operation[T]) -> T:
        """Do what an operation asks for, until it has its result."""
        try:
            step = next(operation)
            while True:
                if isinstance(step, Request):
                    try:
                        response = self._http.request(step.method, step.path, **step.options)
                    except httpx.HTTPError as error:
                        step = operation.throw(error)
                    else:
                        step = operation.send(response)
                else:
                    time.sleep(step.seconds)
                    step = next(operation)
        except StopIteration as end:
            result: T = end.value
            return result

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request. Raises ServiceError with what the problem document says."""
        return self._carry_out(self._exchange.request(method, path, **options))

    def request_json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request, and return its answer as JSON data."""
        return self._carry_out(self._exchange.json(method, path, **options))

    def stream(self, path: str) -> AbstractContextManager[httpx.Response]:
        return self._http.stream("GET", path, timeout=_FILE_SECONDS)

    def get(self, path: str, **params: Any) -> Any:
        return self._carry_out(operations.get(self._exchange, path, **params))

    def submit(
        self,
        spec: Mapping[str, Any] | str | Path | None = None,
        key: str | None = None,
        **fields: Any,
    ) -> Job:
        """Create a job.

        Args:
            spec: The job as the API takes it, or a JSON or YAML file that holds it.
            key: With the same one the job is created once, however often this is called.
            fields: Fields of the job, added to ``spec`` or in place of its own. A model, data
                set or optimizer may be a name; ``epochs``, ``steps`` and ``seconds`` are the
                budget. A model may also be a ``torch.nn.Module``, with an ``example`` of its
                inputs: it is uploaded first.
        """
        example = fields.pop("example", None)
        if networks.is_network(fields.get("model")):
            fields["model"] = networks.as_model(self.upload_network(fields["model"], example))
        body = specification(spec, fields)
        with placed(spec):
            return self._carry_out(operations.submit(self._exchange, body, key))

    def validate(self, spec: Mapping[str, Any] | str | Path | None = None, **fields: Any) -> Record:
        """Check a job as ``submit`` takes it, and estimate what it needs; nothing is created."""
        body = specification(spec, fields)
        with placed(spec):
            return self._carry_out(operations.validate(self._exchange, body))

    def job(self, job: What) -> Job:
        """A job as it is now."""
        return self._carry_out(operations.job(self._exchange, job))

    def get_run(self, run: What) -> Run:
        """A run in full."""
        return self._carry_out(operations.run(self._exchange, run))

    def run(
        self,
        project: str | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        optimizer: str = "unknown",
        model: str = "unknown",
        dataset: str = "unknown",
        seed: int = 0,
        finish_seconds: float = 60.0,
        **fields: Any,
    ) -> RunLogger:
        """Begin a run that a loop of your own trains; it stands in the same comparisons.

        Args:
            project: The name of its project, which is made if there is none of it.
            config: Hyperparameters; runs that differ in more than the seed are other groups.
            optimizer: What trains it; also ``model`` and ``dataset``, as runs of ours have them.
            finish_seconds: How long the end waits for a service that is away.
            fields: ``tags``, ``batch_size``, ``total_steps``; ``environment`` adds to what is
                known of this machine.

        Example:
            >>> with client.run(project="mine", optimizer="sgd", config={"lr": 0.1}) as run:
            ...     for x, y in batches:
            ...         run.log(loss=train(x, y), samples=seen)
        """
        given = {"project": project, "name": name, "optimizer": optimizer, "model": model}
        spec = {k: v for k, v in given.items() if v is not None} | {
            "dataset": dataset,
            "seed": seed,
            "config": dict(config or {}),
            **fields,
            "environment": {**hardware(), **fields.get("environment", {})},
        }
        return RunLogger(self, spec, finish_seconds)

    def import_run(
        self,
        source: Any,
        format: str,
        *,
        rename: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Record:
        """Make a run from what another tool wrote; returns it with what was understood.

        Args:
            source: A file, several, or a folder of event files; all of one run.
            format: ``csv``, ``wandb`` (history as JSON lines, or CSV) or ``tensorboard``.
            rename: By column or tag, its metric or axis.
            fields: Of the run: ``name``, ``project``, ``optimizer``, ``config``, ….
        """
        paths = event_files(source) if format == "tensorboard" else files_of(source, Path())
        data = {"format": format, "run": json.dumps(fields), "rename": json.dumps(rename or {})}
        with Upload(paths, self.get, None) as upload:
            made = self.request_json(
                "POST", "/v1/imports", data=data, files=upload.parts, timeout=600.0
            )
        return Record(made)

    def jobs(self, limit: int | None = None, **filters: Any) -> Pages[Job]:
        """Jobs, the newest first; pages are fetched as they are needed.

        Args:
            limit: At most so many.
            filters: As in ``GET /v1/jobs``: status, kind, tag, optimizer, model, dataset, q, ….
        """
        return self._pages("jobs", Job, limit, filters)

    def runs(self, job: What | None = None, limit: int | None = None, **filters: Any) -> Pages[Run]:
        """Runs, the newest first; ``runs(…).to_pandas()`` is a table of them.

        Args:
            job: Only the runs of this job.
            limit: At most so many.
            filters: As in ``GET /v1/runs``: status, optimizer, model, dataset, q, ….
        """
        if job is not None:
            filters["job_id"] = identity(job)
        return self._pages("runs", Run, limit, filters)

    def datasets(self, limit: int | None = None) -> Pages[Dataset]:
        """Data sets, built in and uploaded."""
        return self._pages("datasets", Dataset, limit, {})

    def _pages(
        self, resource: str, kind: type[Any], limit: int | None, filters: Json
    ) -> Pages[Any]:
        def fetch(most: int, cursor: str | None) -> tuple[list[Any], str | None]:
            page = operations.page(self._exchange, resource, kind, most, cursor, filters)
            return self._carry_out(page)

        return Pages(fetch, limit)

    def find(self, resource: str, limit: int = 50, **filters: Any) -> list[Record]:
        """The first ``limit`` items of a list, from as many pages as that takes."""
        return self._carry_out(operations.find(self._exchange, resource, Record, limit, filters))

    def act(self, job: What, action: str) -> Job:
        """Cancel, pause, resume, retry or clone a job."""
        return self._carry_out(operations.act(self._exchange, job, action))

    def cancel(self, job: What) -> Job:
        """Stop a job for good; what it has measured is kept."""
        return self.act(job, "cancel")

    def delete(self, what: What, *, force: bool = False, cancel: bool = False) -> None:
        """Delete a job, run, data set, meta-checkpoint, webhook or retention rule by its id.

        Args:
            force: Although ended things depend on it.
            cancel: Although it has not ended.
        """
        self._carry_out(operations.delete(self._exchange, what, force, cancel))

    def delete_many(self, **wanted: Any) -> Json:
        """Delete by ``ids`` or by a ``filter`` of jobs; a dry run unless ``dry_run=False``."""
        report: Json = self.request_json("POST", "/v1/deletions", json=wanted)
        return report

    def archive(self, what: What, *, undo: bool = False) -> Json:
        """Hide an ended job or run from lists, or show it again."""
        return self._carry_out(operations.archive(self._exchange, what, undo))

    def wait(
        self,
        job: What,
        on_change: Callable[[Job], None] | None = None,
        poll_seconds: float = 0.5,
        timeout: float | None = None,
    ) -> Job:
        """Wait until a job has ended; each time it is fetched it is passed to ``on_change``.

        Raises WaitTimeoutError, a ServiceError, when it has not ended after ``timeout`` seconds.
        """
        return self._carry_out(
            operations.wait(self._exchange, job, on_change, poll_seconds, timeout)
        )

    def watch(self, job: What, timeout: float | None = None) -> Job:
        """Wait until a job has ended, and show how far it is; returns it, however it ended."""
        return self.wait(job, Bar().show, timeout=timeout)

    def events(self, job: What, after: int = 0) -> Iterator[Json]:
        """Yield a job's events as they happen, until it has ended.

        Each is ``{"id": int, "event": "status" | "metrics" | "log", "data": dict}``. After a
        lost connection it goes on with the event that would have come next.
        """
        path = f"/v1/jobs/{part(identity(job))}/events"
        failures = 0
        while True:
            try:
                with connect_sse(
                    self._http, "GET", path, headers={"Last-Event-ID": str(after)}, timeout=60.0
                ) as source:
                    if source.response.is_error:
                        source.response.read()
                        raise refusal(source.response)
                    for message in source.iter_sse():
                        if not message.data:
                            continue  # only how soon to try again, or a keep-alive
                        failures = 0
                        after = int(message.id)
                        yield {"id": after, "event": message.event, "data": message.json()}
                return
            except httpx.HTTPError as error:
                failures += 1
                if failures > _MOST_LOST:
                    raise ServiceError(f"lost {self.url}: {error}") from None
                time.sleep(min(5.0, 0.5 * failures))

    def curves(
        self,
        run: What,
        metric: str | list[str] | None = None,
        x: str = "samples",
        max_points: int | None = None,
    ) -> Curves:
        """Curves of a run by metric, as NumPy arrays or (``.to_pandas()``) as a table.

        Args:
            metric: One or several; all when absent.
            x: ``samples``, ``steps``, ``epochs``, ``wall_seconds`` or ``cpu_seconds``.
            max_points: Of each metric; all when absent.
        """
        return self._carry_out(operations.curves(self._exchange, run, metric, x, max_points))

    def compare(self, what: What | Iterable[What], **params: Any) -> Comparison:
        """A job's runs, or several runs, beside each other.

        Args:
            params: ``metric`` to compare, ``target`` to reach, ``x``: as GET /v1/comparisons.
        """
        return self._carry_out(operations.compare(self._exchange, what, params))

    def figure(self, what: What | Iterable[What], format: str = "png", **params: Any) -> bytes:
        """A figure that compares runs, as ``png`` or ``svg``, or their numbers as ``csv``."""
        wanted = {"format": format, **params}
        return self._carry_out(operations.figure(self._exchange, what, wanted))

    def predict(self, run: What, rows: Any) -> Predictions:
        """Predict with the model that a run trained; inputs are raw, as its data had them.

        Args:
            rows: A DataFrame, an array whose first axis is the samples, or a list of mappings,
                lists or strings; any number of them.

        Example:
            >>> client.predict(run, [{"length": 3.0, "width": 1.0}]).labels
            ['tulip']
        """
        return self._carry_out(operations.predict(self._exchange, run, rows))

    def export(self, run: What, target: str | Path) -> Path:
        """Have the service write the trained network of a run as ``.onnx`` or ``.pt2``.

        ``torch.export.load`` reads the latter. Both take preprocessed inputs (``model.json``).
        """
        return self._carry_out(operations.export(self._exchange, run, Path(target)))

    def predict_file(self, run: What, source: str | Path, target: str | Path) -> Path:
        """Predict every row of a .csv, .parquet or .npz file into a file of the same format."""
        return self._carry_out(
            operations.predict_file(self._exchange, run, Path(source), Path(target))
        )
