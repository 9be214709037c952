"""Commands that show one thing: what it is, its log, its curves."""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, AsJson, Key, Url, number

if TYPE_CHECKING:
    from mlhf_service.client import Client

_LINES = 500
_POLL_SECONDS = 1.0
_EVALUATED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
_SHOWN = ("train_loss", "test_accuracy")
_MOST_RUNS = 34  # as many as there are marks
Ids = Annotated[list[str], typer.Argument(help="Ids of runs; of one job: all its runs.")]


def add_to(cli: typer.Typer) -> None:
    for command in (show, logs, curves):
        cli.command()(command)


def show(
    identity: Annotated[str, typer.Argument(help="Id of a job, run, data set, …")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show one thing in full, by its id."""
    from mlhf_service.client.exchange import address

    with connection.connect(url, key) as client:
        found = client.get(address(identity))
        if as_json:
            connection.print_json(found)
        elif identity.startswith("job_"):
            _show_job(client, found)
        elif identity.startswith("run_"):
            _show_run(client, found)
        else:
            _facts(found, found)


def logs(
    identity: Annotated[str, typer.Argument(help="Id of a job, or of one run.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it has ended.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Print a log, the oldest line first."""
    import json

    if not identity.startswith(("job_", "run_")):
        raise typer.BadParameter(f"{identity} is no id of a job or a run")
    with connection.connect(url, key) as client:
        run = identity if identity.startswith("run_") else None
        job = client.get_run(identity).job_id if run else identity
        for line in _lines(client, job, follow):
            if run and line["run_id"] not in (run, None):
                continue
            if as_json:
                typer.echo(json.dumps(line, ensure_ascii=False))
            else:
                of = f"{line['run_id']}  " if line["run_id"] and not run else ""
                typer.echo(f"{line['at'][:19]}  {line['level']:7}  {of}{line['message']}")


def curves(
    ids: Ids,
    metric: Annotated[
        list[str] | None, typer.Option(help="Such as test_loss; losses and accuracies if absent.")
    ] = None,
    x: Annotated[
        str, typer.Option(help="samples, steps, epochs, wall_seconds or cpu_seconds.")
    ] = "samples",
    height: Annotated[int, typer.Option(min=4, max=100, help="Of a plot, in lines.")] = 12,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every point of one run here, as CSV.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Draw the curves of runs, a plot a metric."""
    from mlhf_service.cli.plots import Line, plot
    from mlhf_service.client.exchange import part
    from mlhf_service.runs.metrics import label

    width = shutil.get_terminal_size().columns
    with connection.connect(url, key) as client:
        runs = _runs(client, ids)
        if csv is not None:
            if len(runs) > 1:
                raise typer.BadParameter("--csv takes one run")
            given = {"format": "csv", "x": x, **({"metric": metric} if metric else {})}
            path = f"/v1/runs/{part(runs[0]['id'])}/curves"
            csv.write_bytes(client.request("GET", path, params=given).content)
            typer.echo(str(csv))
            return
        found = {}
        for run in runs:
            has = client.get_run(run["id"]).metrics
            wanted = metric or [m for m in _EVALUATED if m in has] or has[:1]
            asked = {"metric": wanted, "x": x, "max_points": max(2 * width, 16)}
            found[run["id"]] = (
                client.get(f"/v1/runs/{part(run['id'])}/curves", **asked)["series"]
                if wanted
                else []
            )
    if as_json:
        connection.print_json([{"run_id": run, "series": of} for run, of in found.items()])
        return
    names = {run["id"]: run["name"] for run in runs}
    for one in dict.fromkeys(series["metric"] for of in found.values() for series in of):
        lines = [
            Line(f"{run}  {names[run]}", [p[0] for p in s["points"]], _floats(s["points"]))
            for run, of in found.items()
            for s in of
            if s["metric"] == one
        ]
        title = f"{label(one)}{f' of {lines[0].label}' if len(lines) == 1 else ''}"
        typer.echo(plot(lines, title, x.replace("_", " "), width, height))
        for line in lines:
            if lost := len(line.y) - len(line.finite()):
                typer.echo(f"  {lost} of {len(line.y)} points are not finite: {line.label}")
    if not any(found.values()):
        typer.echo("Nothing has been measured yet.")


def _floats(points: list[Any]) -> list[float]:
    return [float(value) for _, value in points]


def _runs(client: "Client", ids: list[str]) -> list[Any]:
    runs = [
        run
        for identity in ids
        for run in (
            list(client.runs(job=identity, limit=_MOST_RUNS + 1))
            if identity.startswith("job_")
            else [client.get_run(identity)]
        )
    ]
    if len(runs) > _MOST_RUNS:
        raise typer.BadParameter(f"at most {_MOST_RUNS} runs can be drawn together")
    return runs


def _lines(client: "Client", job: str, follow: bool) -> Iterator[Any]:
    from mlhf_service.client.exchange import part
    from mlhf_service.client.records import TERMINAL

    after = 0
    while True:
        ended = not follow or client.job(job)["status"] in TERMINAL
        while page := client.get(f"/v1/jobs/{part(job)}/logs", after=after, limit=_LINES)["data"]:
            yield from page
            after = page[-1]["seq"]
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def _show_job(client: "Client", job: Mapping[str, Any]) -> None:
    progress = f"{job['progress']['fraction']:.0%} done"
    typer.echo(f"{job['id']}  {job['name']}: {job['status']}, {progress}")
    if job.get("waiting"):
        typer.echo(f"waits: {job['waiting']}")
    if job["error"]:
        typer.echo(f"error: {job['error'].get('detail') or job['error']['title']}")
    shown = ("kind", "project", "tags", "priority", "created_at", "started_at", "finished_at")
    _facts(job, shown)
    _table("configuration", job["spec"])
    found = list(client.runs(job=str(job["id"]), limit=_MOST_RUNS))
    name = f"{job['name']}: "
    rows = [
        [r["id"], r["status"], *(number(r.last(m)) for m in _SHOWN), r["name"].removeprefix(name)]
        for r in found
    ]
    typer.echo("")
    connection.show(found, False, ["run", "status", *_SHOWN, "name"], rows)
    if (total := sum(job["runs"].values())) > len(found):
        typer.echo(f"… and {total - len(found)} more: mlhf runs --job {job['id']}")


def _show_run(client: "Client", run: Mapping[str, Any]) -> None:
    from mlhf_service.cli.tables import print_table
    from mlhf_service.runs.metrics import has_best, label

    typer.echo(f"{run['id']}  {run['name']}: {run['status']}")
    if run["diverged_at"]:
        typer.echo(f"diverged at step {run['diverged_at']['step']:,}")
    if run["error"]:
        typer.echo(f"error: {run['error'].get('detail') or run['error']['title']}")
    shown = ("job_id", "project", "model", "dataset_name", "optimizer", "seed", "tags", "attempts")
    _facts(run, (*shown, "created_at", "started_at", "finished_at"))
    if run["summary"]:
        rows = [
            [
                label(name),
                number(one.get("last")),
                number(one.get("best")) if has_best(name) else "",
                one.get("best_step") if has_best(name) else "",
            ]
            for name, one in run["summary"].items()
        ]
        typer.echo("")
        print_table(["metric", "last", "best", "at step"], rows)
    for name in ("totals", "config", "environment"):
        _table("configuration" if name == "config" else name, run[name] or {})
    files = client.artifacts(str(run["id"]))
    typer.echo("")
    print_table(
        ["file", "bytes"], [[one.name, "–" if one.size is None else one.size] for one in files]
    )


def _facts(found: Mapping[str, Any], names: Any) -> None:
    _table("", {name: found[name] for name in names if found.get(name) not in (None, {}, [])})


def _table(title: str, values: Mapping[str, Any]) -> None:
    from mlhf_service.cli.tables import print_table
    from mlhf_service.kit.flat import flat

    rows = [list(pair) for pair in flat(values)]
    if rows:
        if title:
            typer.echo("")
        print_table([title or "field", "value"], rows)
