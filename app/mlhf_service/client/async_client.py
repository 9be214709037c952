"""The client for asyncio: as ``Client``, with methods to await."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from httpx_sse import aconnect_sse

from mlhf_service.client import operations
from mlhf_service.client.downloads import MODEL_FILES, Download
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
from mlhf_service.client.operations import What
from mlhf_service.client.pages import AsyncPages
from mlhf_service.client.progress import Bar
from mlhf_service.client.records import Dataset, Job, Predictions, Record, Run, identity
from mlhf_service.client.specs import specification
from mlhf_service.client.tables import Comparison, Curves
from mlhf_service.client.uploads import files_of, format_of, name_of

if TYPE_CHECKING:
    from mlhf import LoadedModel

T = TypeVar("T")
_MOST_LOST = 10  # connections in a row


class AsyncClient:
    """A connection to the service at ``url``; arguments and errors are those of ``Client``.

    Example:
        >>> async with AsyncClient() as client:
        ...     job = await client.watch(await client.submit("job.json"))
        ...     async for run in client.runs(job):
        ...         print(run.name, run.last("test_accuracy"))
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
            self._http = httpx.AsyncClient(
                base_url=self.url, timeout=timeout, headers=key_headers(key)
            )
        except httpx.InvalidURL as error:
            raise ServiceError(f"{self.url} is not an address: {error}") from None

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _carry_out(self, operation: Operation[T]) -> T:
        try:
            step = next(operation)
            while True:
                if isinstance(step, Request):
                    try:
                        response = await self._http.request(step.method, step.path, **step.options)
                    except httpx.HTTPError as error:
                        step = operation.throw(error)
                    else:
                        step = operation.send(response)
                else:
                    await asyncio.sleep(step.seconds)
                    step = next(operation)
        except StopIteration as end:
            result: T = end.value
            return result

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request. Raises ServiceError with what the problem document says."""
        return await self._carry_out(self._exchange.request(method, path, **options))

    async def request_json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request, and return its answer as JSON data."""
        return await self._carry_out(self._exchange.json(method, path, **options))

    async def get(self, path: str, **params: Any) -> Any:
        return await self._carry_out(operations.get(self._exchange, path, **params))

    async def submit(
        self,
        spec: Mapping[str, Any] | str | Path | None = None,
        key: str | None = None,
        **fields: Any,
    ) -> Job:
        """Create a job, as ``Client.submit``."""
        body = specification(spec, fields)
        with placed(spec):
            return await self._carry_out(operations.submit(self._exchange, body, key))

    async def validate(
        self, spec: Mapping[str, Any] | str | Path | None = None, **fields: Any
    ) -> Record:
        """Check a job, as ``Client.validate``."""
        body = specification(spec, fields)
        with placed(spec):
            return await self._carry_out(operations.validate(self._exchange, body))

    async def job(self, job: What) -> Job:
        """A job as it is now."""
        return await self._carry_out(operations.job(self._exchange, job))

    async def get_run(self, run: What) -> Run:
        """A run in full."""
        return await self._carry_out(operations.run(self._exchange, run))

    def jobs(self, limit: int | None = None, **filters: Any) -> AsyncPages[Job]:
        """Jobs, the newest first, for ``async for``."""
        return self._pages("jobs", Job, limit, filters)

    def runs(
        self, job: What | None = None, limit: int | None = None, **filters: Any
    ) -> AsyncPages[Run]:
        """Runs, the newest first, for ``async for``."""
        if job is not None:
            filters["job_id"] = identity(job)
        return self._pages("runs", Run, limit, filters)

    def datasets(self, limit: int | None = None) -> AsyncPages[Dataset]:
        """Data sets, built in and uploaded, for ``async for``."""
        return self._pages("datasets", Dataset, limit, {})

    def _pages(
        self, resource: str, kind: type[Any], limit: int | None, filters: Json
    ) -> AsyncPages[Any]:
        async def fetch(most: int, cursor: str | None) -> tuple[list[Any], str | None]:
            page = operations.page(self._exchange, resource, kind, most, cursor, filters)
            return await self._carry_out(page)

        return AsyncPages(fetch, limit)

    async def act(self, job: What, action: str) -> Job:
        """Cancel, pause, resume, retry or clone a job."""
        return await self._carry_out(operations.act(self._exchange, job, action))

    async def cancel(self, job: What) -> Job:
        """Stop a job for good; what it has measured is kept."""
        return await self.act(job, "cancel")

    async def delete(self, what: What, *, force: bool = False, cancel: bool = False) -> None:
        """Delete something by its id, as ``Client.delete``."""
        await self._carry_out(operations.delete(self._exchange, what, force, cancel))

    async def archive(self, what: What, *, undo: bool = False) -> Json:
        """Hide an ended job or run from lists, or show it again."""
        return await self._carry_out(operations.archive(self._exchange, what, undo))

    async def wait(
        self,
        job: What,
        on_change: Callable[[Job], None] | None = None,
        poll_seconds: float = 0.5,
        timeout: float | None = None,
    ) -> Job:
        """Wait until a job has ended, as ``Client.wait``."""
        waiting = operations.wait(self._exchange, job, on_change, poll_seconds, timeout)
        return await self._carry_out(waiting)

    async def watch(self, job: What, timeout: float | None = None) -> Job:
        """Wait until a job has ended, and show how far it is."""
        return await self.wait(job, Bar().show, timeout=timeout)

    async def events(self, job: What, after: int = 0) -> AsyncIterator[Json]:
        """Yield a job's events as they happen, as ``Client.events``."""
        path = f"/v1/jobs/{part(identity(job))}/events"
        failures = 0
        while True:
            headers = {"Last-Event-ID": str(after)}
            try:
                async with aconnect_sse(
                    self._http, "GET", path, headers=headers, timeout=60.0
                ) as source:
                    if source.response.is_error:
                        await source.response.aread()
                        raise refusal(source.response)
                    async for message in source.aiter_sse():
                        if not message.data:
                            continue
                        failures = 0
                        after = int(message.id)
                        yield {"id": after, "event": message.event, "data": message.json()}
                return
            except httpx.HTTPError as error:
                failures += 1
                if failures > _MOST_LOST:
                    raise ServiceError(f"lost {self.url}: {error}") from None
                await asyncio.sleep(min(5.0, 0.5 * failures))

    async def curves(
        self,
        run: What,
        metric: str | list[str] | None = None,
        x: str = "samples",
        max_points: int | None = None,
    ) -> Curves:
        """Curves of a run, as ``Client.curves``."""
        return await self._carry_out(operations.curves(self._exchange, run, metric, x, max_points))

    async def compare(self, what: What | Iterable[What], **params: Any) -> Comparison:
        """A job's runs, or several runs, beside each other."""
        return await self._carry_out(operations.compare(self._exchange, what, params))

    async def figure(self, what: What | Iterable[What], format: str = "png", **more: Any) -> bytes:
        """A figure that compares runs, as ``Client.figure``."""
        wanted = {"format": format, **more}
        return await self._carry_out(operations.figure(self._exchange, what, wanted))

    async def predict(self, run: What, rows: Any) -> Predictions:
        """Predict with the model that a run trained, as ``Client.predict``."""
        return await self._carry_out(operations.predict(self._exchange, run, rows))

    async def predict_file(self, run: What, source: str | Path, target: str | Path) -> Path:
        """Predict every row of a file, as ``Client.predict_file``."""
        made = operations.predict_file(self._exchange, run, Path(source), Path(target))
        return await self._carry_out(made)

    async def export(self, run: What, target: str | Path) -> Path:
        """Have the service write a trained network, as ``Client.export``."""
        return await self._carry_out(operations.export(self._exchange, run, Path(target)))

    async def download(self, run: What, name: str, target: str | Path) -> Path:
        """Download one artifact of a run to ``target``, its SHA-256 checked."""
        target = Path(target)
        path = f"/v1/runs/{part(identity(run))}/artifacts/{part(name)}"
        try:
            with Download(target) as download:
                async with self._http.stream("GET", path, timeout=300.0) as response:
                    if response.is_error:
                        await response.aread()
                        raise refusal(response)
                    async for chunk in response.aiter_bytes():
                        download.write(chunk)
                    return download.finish(response.headers.get("etag", ""))
        except httpx.HTTPError as error:
            raise ServiceError(f"the download of {target.name} was interrupted: {error}") from None

    async def load_model(self, run: What, folder: str | Path | None = None) -> "LoadedModel":
        """Download the trained network of a run, and rebuild it; needs torch."""
        from mlhf import load_model

        with tempfile.TemporaryDirectory() as scratch:
            place = Path(folder or scratch)
            for name in MODEL_FILES:
                await self.download(run, name, place / name)
            return await asyncio.to_thread(load_model, place)

    async def upload(
        self, source: Any, name: str | None = None, format: str | None = None, **params: Any
    ) -> Dataset:
        """Upload a data set from a path, several paths or a DataFrame, as ``Client.upload``."""
        with tempfile.TemporaryDirectory() as scratch:
            files = await asyncio.to_thread(files_of, source, Path(scratch))
            data = {
                "name": name or name_of(source, files),
                "format": format or format_of(files),
                "params": json.dumps(params),
            }
            read = [(path.name, await asyncio.to_thread(path.read_bytes)) for path in files]
            opened = [("file", one) for one in read]
            made = self.request_json("POST", "/v1/datasets", data=data, files=opened, timeout=600.0)
            return Dataset(await made)
