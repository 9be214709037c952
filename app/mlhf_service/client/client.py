"""A client of a running service, for Python and for the command line."""

import hashlib
import io
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import connect_sse

Json = dict[str, Any]
OnUpload = Callable[[str, int, int], None]  # stage, done, of so many
TERMINAL = ("succeeded", "failed", "cancelled")


class ServiceError(Exception):
    """The service refused a request, or did not answer. The message says why, and where."""


class Client:
    """A connection to the service at ``url``; every method raises ServiceError.

    Args:
        url: The service's address.
        timeout: Seconds to wait for an answer, longer for files and streams.

    Example:
        >>> client = Client("http://127.0.0.1:8000")
        >>> job = client.submit({"kind": "train", ...})
        >>> client.wait(job["id"])["status"]
        'succeeded'
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout)
        except httpx.InvalidURL as error:
            raise ServiceError(f"{url} is not an address: {error}") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request. Raises ServiceError with what the problem document says."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"no answer from {self.url} ({error}). Is it running? Start it with: mlhf serve"
            ) from None
        if response.is_error:
            raise ServiceError(_problem(response))
        return response

    def request_json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request, and return its answer as JSON data."""
        response = self.request(method, path, **options)
        try:
            return response.json()
        except ValueError:
            raise ServiceError(
                f"{self.url} answers, but not as MLHF does. Is it the address of another server?"
            ) from None

    def get(self, path: str, **params: Any) -> Any:
        return self.request_json("GET", path, params=_given(params))

    def submit(self, spec: Json, key: str | None = None) -> Json:
        """Create a job. With the same ``key`` it is created once, however often this is called."""
        headers = {"Idempotency-Key": key} if key else {}
        job: Json = self.request_json("POST", "/v1/jobs", json=spec, headers=headers)
        return job

    def validate(self, spec: Json) -> Json:
        """Check a job's specification; nothing is created."""
        params = {"validate_only": "true"}
        estimate: Json = self.request_json("POST", "/v1/jobs", json=spec, params=params)
        return estimate

    def job(self, job_id: str) -> Json:
        job: Json = self.get(f"/v1/jobs/{_part(job_id)}")
        return job

    def act(self, job_id: str, action: str) -> Json:
        """Cancel, pause, resume, retry or clone a job."""
        job: Json = self.request_json("POST", f"/v1/jobs/{_part(job_id)}/{action}")
        return job

    def find(self, resource: str, limit: int = 50, **filters: Any) -> list[Json]:
        """The first ``limit`` items of a list, from as many pages as that takes."""
        found: list[Json] = []
        cursor: str | None = None
        while len(found) < limit:
            page = self.get(
                f"/v1/{resource}", limit=min(500, limit - len(found)), cursor=cursor, **filters
            )
            found.extend(page["data"])
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return found

    def wait(
        self,
        job_id: str,
        on_change: Callable[[Json], None] | None = None,
        poll_seconds: float = 0.5,
        timeout: float | None = None,
    ) -> Json:
        """Wait until a job has ended; each time it is fetched it is passed to ``on_change``.

        Raises ServiceError when it has not ended after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            job = self.job(job_id)
            if on_change is not None:
                on_change(job)
            if job["status"] in TERMINAL:
                return job
            if deadline is not None and time.monotonic() > deadline:
                raise ServiceError(f"{job_id} is still {job['status']} after {timeout:.0f} s")
            time.sleep(poll_seconds)

    def events(self, job_id: str, after: int = 0) -> Iterator[Json]:
        """Yield a job's events as they happen, until it has ended.

        Each is ``{"id": int, "event": "status" | "metrics" | "log", "data": dict}``. After a
        lost connection it goes on with the event that would have come next.
        """
        path = f"/v1/jobs/{_part(job_id)}/events"
        failures = 0
        while True:
            try:
                with connect_sse(
                    self._http, "GET", path, headers={"Last-Event-ID": str(after)}, timeout=60.0
                ) as source:
                    if source.response.is_error:
                        source.response.read()
                        raise ServiceError(_problem(source.response))
                    for message in source.iter_sse():
                        if not message.data:
                            continue  # only how soon to try again, or a keep-alive
                        failures = 0
                        after = int(message.id)
                        yield {"id": after, "event": message.event, "data": message.json()}
                return
            except httpx.HTTPError as error:
                failures += 1
                if failures > 10:
                    raise ServiceError(f"lost {self.url}: {error}") from None
                time.sleep(min(5.0, 0.5 * failures))

    def download(self, run_id: str, name: str, target: Path) -> Path:
        """Download one artifact of a run to ``target``."""
        return self.download_file(f"/v1/runs/{_part(run_id)}/artifacts/{_part(name)}", target)

    def download_file(self, path: str, target: Path) -> Path:
        """Download a file to ``target``, whole or not at all, its SHA-256 checked."""
        digest = hashlib.sha256()
        partial = target.with_name(target.name + ".part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._http.stream("GET", path, timeout=300.0) as response:
                if response.is_error:
                    response.read()
                    raise ServiceError(_problem(response))
                with partial.open("wb") as out:
                    for chunk in response.iter_bytes():
                        digest.update(chunk)
                        out.write(chunk)
                etag = response.headers.get("etag", "").strip('"')
        except httpx.HTTPError as error:
            raise ServiceError(f"the download of {target.name} was interrupted: {error}") from None
        if etag and etag != digest.hexdigest():
            partial.unlink(missing_ok=True)
            raise ServiceError(
                f"{target.name} arrived damaged (SHA-256 differs). Download it again."
            )
        os.replace(partial, target)
        return target

    def compare(self, run_ids: list[str], **params: Any) -> Json:
        """Runs beside each other: curves, final values, and what a target took."""
        comparison: Json = self.get("/v1/comparisons", run=run_ids, **params)
        return comparison

    def figure(self, run_ids: list[str], format: str = "png", **params: Any) -> bytes:
        """A figure that compares runs, as ``png`` or ``svg``, or their numbers as ``csv``."""
        wanted = _given({"run": run_ids, "format": format, **params})
        return self.request("GET", "/v1/comparisons", params=wanted).content

    def ablation(self, job_id: str) -> Json:
        """The table of a job of kind ``ablation``, of those of its runs that have ended."""
        table: Json = self.get("/v1/ablations", job=job_id)
        return table

    def ablation_file(self, job_id: str, format: str) -> bytes:
        """That table as ``csv`` or ``md``, or its figure as ``png``."""
        return self.request(
            "GET", "/v1/ablations", params={"job": job_id, "format": format}
        ).content

    def upload(
        self,
        name: str,
        format: str,
        files: list[Path],
        params: Json,
        on_progress: OnUpload | None = None,
    ) -> Json:
        """Upload a data set.

        Args:
            on_progress: Called with a stage (``sending``, ``unpacking``, ``checking``,
                ``storing``), how much of it is done, and of how much: bytes while it is sent,
                samples while it is checked. 0 of 0 where that is not known.
        """
        progress_id = secrets.token_hex(16)
        data = {"name": name, "format": format, "params": json.dumps(params)}
        if on_progress is not None:
            data["progress_id"] = progress_id
        with ExitStack() as stack:
            total = sum(path.stat().st_size for path in files)
            sent = _Sent(total, on_progress)
            opened = [
                ("file", (path.name, stack.enter_context(_CountedFile(path, sent))))
                for path in files
            ]
            if on_progress is not None:
                stack.enter_context(self._watched_upload(progress_id, sent, on_progress))
            dataset: Json = self.request_json(
                "POST", "/v1/datasets", data=data, files=opened, timeout=600.0
            )
        return dataset

    @contextmanager
    def _watched_upload(
        self, progress_id: str, sent: "_Sent", on_progress: OnUpload
    ) -> Iterator[None]:
        """Ask the service how far an upload is once it is sent, in a thread."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.5):
                if not sent.all:
                    continue
                try:
                    found = self.get(f"/v1/datasets/progress/{progress_id}")
                except ServiceError:  # one that cannot say
                    continue
                if found["stage"] != "waiting" and not ended.is_set():
                    on_progress(found["stage"], found["done"], found["total"])

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def upload_meta_checkpoint(self, name: str, path: Path) -> Json:
        """Upload a meta-checkpoint that a meta_train job made."""
        with path.open("rb") as file:
            meta_checkpoint: Json = self.request_json(
                "POST", "/v1/meta-checkpoints", data={"name": name}, files={"file": file}
            )
        return meta_checkpoint


class _Sent:
    """How many bytes of an upload have been read to be sent."""

    def __init__(self, total: int, on_progress: OnUpload | None) -> None:
        self._total = total
        self._done = 0
        self._on_progress = on_progress

    @property
    def all(self) -> bool:
        return self._done >= self._total

    def add(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress("sending", self._done, self._total)


class _CountedFile(io.FileIO):
    """A file that says how much of it was read."""

    def __init__(self, path: Path, sent: _Sent) -> None:
        super().__init__(path)
        self._sent = sent

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(-1 if size is None else size) or b""
        self._sent.add(len(content))
        return content


def _part(value: str) -> str:
    return quote(value, safe="")


def _given(params: Json) -> Json:
    return {name: value for name, value in params.items() if value is not None}


def _problem(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return f"{response.status_code} {response.reason_phrase}"
    if not isinstance(body, dict):
        return f"{response.status_code} {response.reason_phrase}"
    text = str(body.get("detail") or body.get("title") or response.reason_phrase)
    pointers = [e["pointer"] for e in body.get("errors") or [] if e.get("pointer")]
    where = f" (at {', '.join(pointers)})" if pointers else ""
    return f"{text}{where}"
