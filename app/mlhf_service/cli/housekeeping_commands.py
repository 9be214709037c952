"""Commands that delete, archive and retain, and that show the workers."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, AsJson, Key, Url

Ids = Annotated[list[str], typer.Argument(help="Ids of jobs, runs, data sets, …")]


def add_to(cli: typer.Typer) -> None:
    for command in (delete, archive, unarchive, workers):
        cli.command()(command)
    retention = typer.Typer(no_args_is_help=True, help="Rules by which what has ended is dropped.")
    retention.command("list")(rules)
    retention.command()(add)
    retention.command()(preview)
    retention.command()(run)
    cli.add_typer(retention, name="retention")


def delete(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of any kind.")] = None,
    filter: Annotated[
        str | None,
        typer.Option("--filter", "-f", help="Runs that meet it, as in `mlhf runs --filter`."),
    ] = None,
    status: Annotated[list[str] | None, typer.Option(help="Jobs of this status.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Jobs with this tag: key or key:value.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Jobs with this in their name.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Jobs with this optimizer.")] = None,
    model: Annotated[str | None, typer.Option(help="Jobs with this model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Jobs on this data set.")] = None,
    older_than_days: Annotated[float | None, typer.Option(help="Jobs made before.")] = None,
    force: Annotated[bool, typer.Option(help="Although ended things depend on it.")] = False,
    cancel: Annotated[bool, typer.Option(help="Although it has not ended.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; else only say what would be.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete things by their ids, or the jobs or runs that a filter finds."""
    of_jobs: dict[str, Any] = {
        "status": status or [],
        "tags": _tags(tag),
        "q": name,
        "optimizer": optimizer,
        "model": model,
        "dataset": dataset,
    }
    if older_than_days is not None:
        before = datetime.now(UTC) - timedelta(days=older_than_days)
        of_jobs["created_before"] = before.isoformat()
    of_jobs = {name: value for name, value in of_jobs.items() if value}
    if (bool(ids) + (filter is not None) + bool(of_jobs)) != 1:
        raise typer.BadParameter("give ids, or --filter, or conditions of jobs: one of the three")
    wanted: dict[str, Any] = {"dry_run": not yes, "force": force, "cancel": cancel}
    if ids:
        wanted["ids"] = ids
    elif filter is not None:
        wanted["runs"] = filter
    else:
        wanted["filter"] = of_jobs
    with connection.connect(url, key) as client:
        report = client.delete_many(**wanted)
    if as_json:
        connection.print_json(report)
    else:
        word = "deleted" if yes else "would delete"
        for identity in report["deleted"]:
            typer.echo(f"{word} {identity}")
        for kept in report["kept"]:
            typer.echo(f"kept {kept['id']}: {kept['detail']}")
        if report["deleted"] and not yes:
            typer.echo("Nothing was deleted: add --yes.")
        if not (report["deleted"] or report["kept"]):
            typer.echo("Nothing meets this.")
        if report["more"]:
            typer.echo("There are more: call it again.")
    if report["kept"]:
        raise typer.Exit(1)


def archive(ids: Ids, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Hide ended jobs or runs from lists."""
    _archive(ids, url, key, as_json, undo=False)


def unarchive(ids: Ids, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show archived jobs or runs in lists again."""
    _archive(ids, url, key, as_json, undo=True)


def _archive(ids: list[str], url: str, key: str | None, as_json: bool, *, undo: bool) -> None:
    changed = []
    with connection.connect(url, key) as client:
        for identity in ids:
            changed.append(client.archive(identity, undo=undo))
            if not as_json:
                typer.echo(f"shows {identity} again" if undo else f"archived {identity}")
    if as_json:
        connection.print_json(changed)


def workers(url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show the workers, and what waits for them."""
    from mlhf_service.cli.tables import print_table

    with connection.connect(url, key) as client:
        found = client.get("/v1/workers")["data"]
        queue = client.get("/v1/queue")
    if as_json:
        typer.echo(json.dumps({"workers": found, "queue": queue}, indent=2))
        return
    rows = [
        [w["name"], w["queue"], w["state"], w["run_id"] or "", w["reason"] or ""] for w in found
    ]
    print_table(["worker", "queue", "state", "trains", "reason"], rows)
    for one in queue["data"]:
        oldest = one["oldest_seconds"]
        waits = f", the first for {oldest:.0f} s" if oldest is not None else ""
        typer.echo(
            f"{one['queue']}, priority {one['priority']}: {one['waiting']} wait{waits}, "
            f"{one['later']} later, {one['running']} run"
        )


def rules(url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List the rules."""
    from mlhf_service.cli.tables import print_table

    with connection.connect(url, key) as client:
        found = client.find("retention", 500)
    if as_json:
        connection.print_json(found)
        return
    rows = [
        [
            r["id"],
            r["name"],
            "on" if r["enabled"] else "off",
            (r["last_result"] or {}).get("dropped", "–"),
            json.dumps({k: v for k, v in r["rule"].items() if v not in (None, [], {})}),
        ]
        for r in found
    ]
    print_table(["rule", "name", "", "dropped last", "what"], rows)


RuleText = Annotated[str, typer.Argument(help='As JSON, such as {"older_than_days": 30}.')]


def add(
    name: Annotated[str, typer.Argument(help="A name for it.")],
    rule: RuleText,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a rule. See first with preview what it would drop."""
    with connection.connect(url, key) as client:
        body = {"name": name, "rule": _json(rule)}
        made = client.request_json("POST", "/v1/retention", json=body)
    if as_json:
        connection.print_json(made)
    else:
        typer.echo(made["id"])


def preview(
    rule: RuleText, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Say what a rule would drop now."""
    with connection.connect(url, key) as client:
        found = client.request_json("POST", "/v1/retention/preview", json=_json(rule))
    if as_json:
        connection.print_json(found)
        return
    for identity in found["ids"]:
        typer.echo(identity)
    typer.echo(f"{found['total']} in all, {found['bytes']:,} bytes of files")


def run(
    rule: Annotated[str, typer.Argument(help="Its id.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Carry a rule out now, on fifty things."""
    with connection.connect(url, key) as client:
        found = client.request_json("POST", f"/v1/retention/{rule}/run")
    if as_json:
        connection.print_json(found)
        return
    typer.echo(f"{found['dropped']} dropped")
    for kept in found["kept"]:
        typer.echo(f"kept {kept['id']}: {kept['detail']}")


def _tags(tags: list[str] | None) -> dict[str, str | None]:
    pairs = (tag.partition(":") for tag in tags or ())
    return {key: value if colon else None for key, colon, value in pairs}


def _json(text: str) -> Any:
    from mlhf_service.client import ServiceError

    try:
        return json.loads(text)
    except ValueError as error:
        raise ServiceError(f"{text} is no JSON: {error}") from None
