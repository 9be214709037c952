"""Commands on projects, which group jobs and their runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, AsJson, Key, Url

if TYPE_CHECKING:
    from mlhf_service.client import Client, Record

_MOST = 10_000
Which = Annotated[str, typer.Argument(metavar="PROJECT", help="Its name or its id.")]
Description = Annotated[str | None, typer.Option(help="Markdown, kept as written.")]


def add_to(cli: typer.Typer) -> None:
    projects = typer.Typer(no_args_is_help=True, help="Projects: groups of jobs and their runs.")
    projects.command("list")(projects_list)
    for command in (create, change, move, archive, unarchive, delete):
        projects.command()(command)
    cli.add_typer(projects, name="projects")


def projects_list(
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the projects by name. Jobs without one are in `default`, which is not listed."""
    with connection.connect(url, key) as client:
        found = _all(client, archived)
    rows = [
        [
            one["name"],
            one["jobs"],
            "archived" if one["archived_at"] else "",
            one["description"] or "",
            one["id"],
        ]
        for one in found
    ]
    connection.show(found, as_json, ["project", "jobs", "", "description", "id"], rows)


def create(
    name: Annotated[str, typer.Argument(help="What jobs name it by.")],
    description: Description = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a project."""
    body = {"name": name, "description": description}
    with connection.connect(url, key) as client:
        made = client.request_json("POST", "/v1/projects", json=body)
    _said(made, as_json, f"{made['id']}  {made['name']}")


def change(
    project: Which,
    name: Annotated[str | None, typer.Option(help="Another name; its jobs stay in it.")] = None,
    description: Description = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Rename a project, or describe it."""
    given = {"name": name, "description": description}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("give --name, --description or both")
    _change(project, changes, url, key, as_json)


def move(
    project: Annotated[str, typer.Argument(help="Its name or its id; `default` for none.")],
    ids: Annotated[list[str], typer.Argument(help="Ids of jobs; their runs move with them.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Move jobs into a project."""
    with connection.connect(url, key) as client:
        name = project if project == "default" else _find(client, project)["name"]
        body = {"ids": ids, "changes": {"project": name}}
        report = client.request_json("POST", "/v1/edits", json=body)
    _said(report, as_json, *(f"moved {identity} to {name}" for identity in report["changed"]))


def archive(
    project: Which, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Hide a project; it takes no new jobs."""
    _change(project, {"archived": True}, url, key, as_json)


def unarchive(
    project: Which, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Show a project again; it takes new jobs."""
    _change(project, {"archived": False}, url, key, as_json)


def delete(
    project: Which, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Delete a project that has no jobs."""
    with connection.connect(url, key) as client:
        found = _find(client, project)
        client.delete(found["id"])
    _said({"deleted": found["id"]}, as_json, f"deleted {found['name']}")


def _change(
    project: str, changes: dict[str, Any], url: str, key: str | None, as_json: bool
) -> None:
    with connection.connect(url, key) as client:
        path = f"/v1/projects/{_find(client, project)['id']}"
        now = client.request_json("PATCH", path, json=changes)
    state = ", archived" if now["archived_at"] else ""
    _said(now, as_json, f"{now['id']}  {now['name']}{state}")


def _all(client: "Client", archived: bool) -> "list[Record]":
    return client.find("projects", _MOST, archived="any" if archived else None)


def _find(client: "Client", project: str) -> "Record":
    """A project by its id or name. Raises ServiceError where there is none."""
    from mlhf.core.explain import unknown
    from mlhf_service.client import ServiceError

    found = _all(client, archived=True)
    for one in found:
        if project in (one["id"], one["name"]):
            return one
    raise ServiceError(unknown("project", project, [str(one["name"]) for one in found]))


def _said(found: Any, as_json: bool, *lines: str) -> None:
    if as_json:
        connection.print_json(found)
    else:
        for line in lines:
            typer.echo(line)
