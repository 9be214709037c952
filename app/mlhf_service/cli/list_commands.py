"""Commands that list what a service has."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, AsJson, Key, Url, number

if TYPE_CHECKING:
    from mlhf_service.client import Client

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="Only of this status; several: any of them.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="With this tag: key or key:value; all must match.")
]
Optimizer = Annotated[str | None, typer.Option(help="Only of this optimizer.")]
Model = Annotated[str | None, typer.Option(help="Only of this model.")]
OfDataset = Annotated[
    str | None, typer.Option("--dataset", help="Only on this data set, by name or id.")
]
Named = Annotated[str | None, typer.Option("--name", help="Part of the name.")]
Project = Annotated[str | None, typer.Option(help="Only of this project, by name.")]
Archived = Annotated[bool, typer.Option("--archived", help="Archived ones too.")]
_FILTER = (
    "Such as \"optimizer.lr < 0.01 and test_loss.best <= 0.3 and tags.team = 'vision'\"; "
    "--fields lists what can be asked for."
)
_COLUMNS = ("optimizer", "train_loss", "test_accuracy")
_ENTRY = ("parameter", "type", "default", "what it is")

Entry = Annotated[str | None, typer.Argument(help="Show the parameters of this one.")]

_CATALOGUES = {
    "models": ("models", "models"),
    "optimizers": ("optimizers", "optimizers"),
    "formats": ("dataset-formats", "formats of data sets that can be uploaded"),
}


def add_to(cli: typer.Typer) -> None:
    for command in (jobs, runs, datasets):
        cli.command()(command)
    for name, (resource, what) in _CATALOGUES.items():
        cli.command(name, help=f"List the {what}, or the parameters of one.")(_list_of(resource))
    cli.command("meta-checkpoints")(meta_checkpoints)


def jobs(
    status: Statuses = None,
    kind: Annotated[str | None, typer.Option(help="train, sweep, meta_train, …")] = None,
    tag: Tags = None,
    optimizer: Optimizer = None,
    model: Model = None,
    dataset: OfDataset = None,
    project: Project = None,
    name: Named = None,
    archived: Archived = False,
    sort: Annotated[
        str, typer.Option(help="created_at, name, status or priority; - in front: downwards.")
    ] = "-created_at",
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    filters: dict[str, Any] = {
        "status": status,
        "kind": kind,
        "tag": tag,
        "optimizer": optimizer,
        "model": model,
        "dataset": dataset,
        "project": project,
        "q": name,
        "archived": "any" if archived else None,
        "sort": sort,
    }
    with connection.connect(url, key) as client:
        found = client.find("jobs", limit, **filters)
        rows = [
            [
                j["id"],
                j["status"],
                f"{j['progress']['fraction']:.0%}",
                sum(j["runs"].values()),
                j["name"],
            ]
            for j in found
        ]
        warnings = _warnings(client) if any(j["status"] == "queued" for j in found) else []
    connection.show(found, as_json, ["job", "status", "done", "runs", "name"], rows)
    for warning in warnings:
        typer.echo(f"note: {warning}", err=True)


def _warnings(client: "Client") -> list[str]:
    """What keeps queued jobs from being trained, such as that no worker is there."""
    return list(client.get("/readyz")["warnings"])


def runs(
    job: Annotated[str | None, typer.Option(help="Only runs of this job.")] = None,
    filter: Annotated[str | None, typer.Option("--filter", "-f", help=_FILTER)] = None,
    sort: Annotated[
        str, typer.Option(help="Any field, such as test_loss.best; - in front: downwards.")
    ] = "-created_at",
    columns: Annotated[
        str | None,
        typer.Option(help="Fields to show: optimizer.lr,test_loss.best,seconds,tags.team."),
    ] = None,
    status: Statuses = None,
    tag: Tags = None,
    optimizer: Optimizer = None,
    model: Model = None,
    dataset: OfDataset = None,
    project: Project = None,
    name: Named = None,
    archived: Archived = False,
    limit: Limit = 20,
    fields: Annotated[
        bool, typer.Option("--fields", help="List the fields instead: of filters, sort, columns.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: all that match, all fields or --columns.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List runs with what they reached."""
    from mlhf_service.runs.metrics import label

    chosen = [one.strip() for one in (columns or "").split(",") if one.strip()]
    filters: dict[str, Any] = {
        "job_id": job,
        "filter": filter,
        "sort": sort,
        "status": status,
        "tag": tag,
        "optimizer": optimizer,
        "model": model,
        "dataset": dataset,
        "project": project,
        "q": name,
        "archived": "any" if archived else None,
    }
    with connection.connect(url, key) as client:
        if fields:
            known = client.get("/v1/runs/fields")["data"]
            rows = [[one["name"], one["kind"], one["type"]] for one in known]
            connection.show(known, as_json, ["field", "kind", "type"], rows)
            return
        if as_csv:
            wanted = {**filters, "columns": chosen or None, "format": "csv"}
            given = {name: value for name, value in wanted.items() if value is not None}
            typer.echo(client.request("GET", "/v1/runs", params=given).text, nl=False)
            return
        found = list(client.runs(limit=limit, **filters))
        shown = chosen or _COLUMNS
        _check(client, [field for field in chosen if all(r.value(field) is None for r in found)])
    rows = [[r["id"], r["status"], *(_cell(r, field) for field in shown), r["name"]] for r in found]
    heads = ["run", "status", *(label(field) for field in shown), "name"]
    connection.show(found, as_json, heads, rows)


def _check(client: "Client", empty: list[str]) -> None:
    """Refuse columns that are no fields; without them a misspelt one would be just empty."""
    from mlhf.core.explain import unknown

    if not empty:
        return
    known = [one["name"] for one in client.get("/v1/runs/fields")["data"]]
    for field in empty:
        if field.removesuffix(".last") not in known and not field.startswith("tags."):
            hint = "; `mlhf runs --fields` lists all"
            raise typer.BadParameter(unknown("field", field, known) + hint)


def _cell(run: Any, field: str) -> str:
    value = run.value(field)
    if run["diverged_at"] and value is not None and "." not in field and field.endswith("loss"):
        return "diverged"
    return number(value)


def datasets(
    limit: Limit = 500, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """List data sets, built in and uploaded."""
    with connection.connect(url, key) as client:
        found = list(client.datasets(limit))
    rows = [
        [
            d.get("id") or d["name"],
            d["name"],
            (d.get("description") or "")
            if d.get("available", True)
            else d.get("reason") or "absent",
        ]
        for d in found
    ]
    connection.show(found, as_json, ["id", "name", "description"], rows)


def _list_of(resource: str) -> Callable[..., None]:
    """A command that lists a catalogue, or the parameters of one of its entries."""

    def command(
        name: Entry = None, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
    ) -> None:
        _catalogue(resource, name, url, key, as_json)

    return command


def _catalogue(resource: str, name: str | None, url: str, key: str | None, as_json: bool) -> None:
    from mlhf_service.client.exchange import part

    with connection.connect(url, key) as client:
        if name is None:
            found = client.get(f"/v1/{resource}")["data"]
            rows = [[one["name"], one["description"]] for one in found]
            connection.show(found, as_json, ["name", "description"], rows)
            return
        entry = client.get(f"/v1/{resource}/{part(name)}")
    if as_json:
        connection.print_json(entry)
        return
    from mlhf_service.cli.tables import print_table
    from mlhf_service.kit.parameters import parameters

    typer.echo(f"{entry['name']}: {entry['description']}")
    rows = [
        [
            one.name,
            f"{one.type} {one.allowed}".strip(),
            "must be given" if one.required else json.dumps(one.default),
            one.description,
        ]
        for one in parameters(entry["params_schema"])
    ]
    if rows:
        print_table(_ENTRY, rows)


def meta_checkpoints(
    url: Url = DEFAULT_URL,
    key: Key = None,
    optimizer: Annotated[
        str | None, typer.Option(help="Only those for mlhf, mlhf_paper, or l2l.")
    ] = None,
    fetch: Annotated[str | None, typer.Option("--download", help="Download this one.")] = None,
    output: Annotated[str, typer.Option(help="Folder to write to.")] = ".",
    add: Annotated[str | None, typer.Option("--upload", help="Upload a .safetensors.")] = None,
    name: Annotated[str, typer.Option(help="Name of what is uploaded.")] = "uploaded",
    as_json: AsJson = False,
) -> None:
    """List what learned optimizers can use; download or upload one."""
    from pathlib import Path

    with connection.connect(url, key) as client:
        if fetch is not None:
            target = Path(output) / f"{fetch}.safetensors"
            path = client.download_file(f"/v1/meta-checkpoints/{fetch}/file", target)
            typer.echo(json.dumps({"path": str(path)}) if as_json else path)
            return
        if add is not None:
            connection.print_json(client.upload_meta_checkpoint(name, Path(add)))
            return
        found = client.find("meta-checkpoints", 500, optimizer=optimizer)
    rows = [
        [m["id"], m["optimizer"], ", ".join(m["aliases"]), m["used_by"], m["name"]] for m in found
    ]
    connection.show(found, as_json, ["id", "optimizer", "aliases", "runs", "name"], rows)
