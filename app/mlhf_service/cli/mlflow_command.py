"""The command that mirrors runs to an MLflow server."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, Key, Url

if TYPE_CHECKING:
    from mlhf_service.client import Client, Run

_EVERY_SECONDS = 5.0
_DONE_WITH = 500  # so many in a row, and the rest is


def add_to(cli: typer.Typer) -> None:
    cli.command()(mlflow)


def mlflow(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of runs and jobs; all runs when absent.")
    ] = None,
    to: Annotated[
        str,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="The MLflow server's address."),
    ] = "http://127.0.0.1:5000",
    experiment: Annotated[
        str | None, typer.Option(help="Where runs are put; mlhf/PROJECT if absent.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until stopped.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Write runs to MLflow as well: parameters, metrics, status. Nothing is written twice."""
    from mlhf_service.client import ServiceError
    from mlhf_service.client.mlflow import Mlflow
    from mlhf_service.client.records import TERMINAL

    done: set[str] = set()
    with connection.connect(url, key) as client, Mlflow(to, experiment) as server:
        while True:
            for run in _chosen(client, ids, done):
                try:
                    there = server.mirror(client, run)
                except ServiceError as error:
                    if not follow:
                        raise
                    typer.echo(f"{run.id}: {error}; it is tried again", err=True)
                    break
                if run.status in TERMINAL:
                    done.add(run.id)
                elif follow:
                    continue
                if as_json:
                    line = {"run_id": run.id, "status": run.status, "mlflow_run_id": there}
                    typer.echo(json.dumps(line))
                else:
                    so_far = "" if run.status in TERMINAL else ", so far"
                    typer.echo(f"{run.id} {run.status} → {there}{so_far}")
            if not follow:
                return
            time.sleep(_EVERY_SECONDS)


def _chosen(client: "Client", ids: list[str] | None, done: set[str]) -> "Iterator[Run]":
    """The runs that are meant and not done with, the newest first."""
    behind = 0
    for run in _all(client, ids):
        behind = behind + 1 if run.id in done else 0
        if behind > _DONE_WITH and not ids:
            return  # what is older was looked at before
        if run.id not in done:
            yield run


def _all(client: "Client", ids: list[str] | None) -> "Iterable[Run]":
    if not ids:
        return client.runs(archived="any")
    found: list[Run] = []
    for identity in ids:
        if identity.startswith("job_"):
            found += client.runs(job=identity)
        else:
            found.append(client.get_run(identity))
    return found
