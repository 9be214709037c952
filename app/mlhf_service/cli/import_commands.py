"""The command that makes runs from what other tools wrote."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, AsJson, Key, Url
from mlhf_service.imports.formats import ImportFormat


def add_to(cli: typer.Typer) -> None:
    cli.command("import")(import_run)


def import_run(
    file: Annotated[list[Path], typer.Argument(help="Files of one run, or a folder of them.")],
    format: Annotated[
        ImportFormat, typer.Option(help="csv, wandb (history as JSON lines, or CSV), tensorboard.")
    ],
    name: Annotated[str | None, typer.Option(help="What to call the run.")] = None,
    project: Annotated[
        str | None, typer.Option(help="Its project, which is made if there is none of it.")
    ] = None,
    optimizer: Annotated[str, typer.Option()] = "unknown",
    model: Annotated[str, typer.Option()] = "unknown",
    dataset: Annotated[str, typer.Option()] = "unknown",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    config: Annotated[str, typer.Option(help="Hyperparameters as JSON.")] = "{}",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples are steps times this, where not told.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="COLUMN=METRIC, such as Loss/train=train_loss.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Import a run from CSV, Weights & Biases or TensorBoard."""
    from mlhf_service.client import ServiceError

    pairs = [one.rpartition("=") for one in rename or []]
    if wrong := [one for one, pair in zip(rename or [], pairs, strict=True) if not pair[0]]:
        raise ServiceError(f"--rename {wrong[0]}: write COLUMN=METRIC")
    try:
        parsed: Any = json.loads(config)
    except ValueError as error:
        raise ServiceError(f"--config is no JSON: {error}") from None
    fields = {
        "name": name,
        "project": project,
        "optimizer": optimizer,
        "model": model,
        "dataset": dataset,
        "seed": seed,
        "config": parsed,
        "batch_size": batch_size,
    }
    given = {key_: value for key_, value in fields.items() if value is not None}
    renamed = {column: metric for column, _, metric in pairs}
    with connection.connect(url, key) as client:
        report = client.import_run(file, format, rename=renamed, **given)
    if as_json:
        connection.print_json(report)
        return
    typer.echo(f"{report['run']['id']}  {report['points']} points")
    for column, metric in report["metrics"].items():
        typer.echo(f"  {column} → {metric}")
    for column, why in report["ignored"].items():
        typer.echo(f"  {column}: left out, {why}")
