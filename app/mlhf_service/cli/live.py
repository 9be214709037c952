"""Follow a job at a terminal: a bar for the job, one for each run that trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mlhf_service.cli.tables import loss_form
from mlhf_service.client import Client
from mlhf_service.client.errors import Json
from mlhf_service.client.uploads import OnUpload


def follow(client: Client, job_id: str, console: Console | None = None) -> Json:
    """Show a job's progress until it has ended; returns the job."""
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=False) as bars:
        view = _View(client, bars, job_id)
        job = client.wait(job_id, on_change=view.update)
        view.update(job)
    if job["status"] == "failed" and job["error"]:
        console.print(f"[red]failed:[/red] {job['error'].get('detail') or job['error']['title']}")
    return job


@contextmanager
def uploading(console: Console | None = None) -> Iterator[OnUpload]:
    """Show how far an upload is: bytes sent, then samples checked."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as bars:
        task = bars.add_task("sending", total=None, note="")

        def show(stage: str, done: int, total: int) -> None:
            what = "bytes" if stage == "sending" else "samples"
            note = f"{done:,} of {total:,} {what}" if total else ""
            bars.update(task, description=stage, completed=done, total=total or None, note=note)

        yield show


class _View:
    def __init__(self, client: Client, bars: Progress, job_id: str) -> None:
        self._client = client
        self._bars = bars
        self._job_id = job_id
        self._total = bars.add_task("all runs", total=1.0, note="")
        self._rows: dict[str, TaskID] = {}
        self._waits: str | None = None

    def update(self, job: Json) -> None:
        if (waits := job.get("waiting")) != self._waits:
            self._waits = waits
            if waits:
                self._bars.console.print(f"queued: {waits}", markup=False, highlight=False)
        counts = job["runs"]
        done = counts["succeeded"] + counts["failed"] + counts["cancelled"]
        note = f"{job['status']}, {done}/{len(job['run_ids'])} runs"
        self._bars.update(self._total, completed=job["progress"]["fraction"], note=note)
        for run in self._client.find("runs", 64, job_id=self._job_id, status="running"):
            self._show(run)
        for run_id in list(self._rows):
            self._end(run_id)

    def _show(self, run: Json) -> None:
        if run["id"] not in self._rows:
            label = run["name"].rpartition(": ")[2][:38]
            self._rows[run["id"]] = self._bars.add_task(label, total=1.0, note="")
        fraction = (run.get("progress") or {}).get("fraction", 0.0)
        self._bars.update(self._rows[run["id"]], completed=fraction, note=_loss(run))

    def _end(self, run_id: str) -> None:
        run = self._client.get(f"/v1/runs/{run_id}")
        if run["status"] != "running":
            task = self._rows.pop(run_id)
            done = (run.get("progress") or {}).get("fraction", 0.0)
            self._bars.update(task, completed=done, note=f"{run['status']}, {_loss(run)}")


def _loss(run: Json) -> str:
    if run.get("diverged_at"):
        return f"diverged at step {run['diverged_at']['step']:,}"
    last: Any = ((run.get("summary") or {}).get("train_loss") or {}).get("last")
    return f"train loss {last:{loss_form(last)}}" if isinstance(last, float) else ""
