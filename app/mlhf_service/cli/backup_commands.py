"""Commands that back up a service and restore it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import AsJson
from mlhf_service.cli.service_commands import DataDir, settings_with

if TYPE_CHECKING:
    from mlhf_service.backup.archive import Manifest

# Of one machine or deployment: a restored service has its own.
_LOCAL = {"data_dir", "datasets_dir", "host", "port", "database_url", "broker_url", "artifacts_url"}


def add_to(cli: typer.Typer) -> None:
    cli.command()(backup)
    cli.command()(restore)


def backup(
    file: Annotated[str, typer.Argument(help="The file to write, or s3://bucket/folder/file.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Back up the whole service to one file, while it runs."""
    from mlhf_service.backup import bucket
    from mlhf_service.backup.create import create
    from mlhf_service.database import Database
    from mlhf_service.storage.factory import open_storage

    settings = settings_with(data_dir=data_dir)
    database = Database(settings.database)
    try:
        with bucket.to_write(file, settings) as path:
            manifest = create(settings, database, open_storage(settings), path)
            size = path.stat().st_size
    finally:
        database.dispose()
    if as_json:
        connection.print_json({"file": file, "bytes": size, **_json(manifest)})
    else:
        typer.echo(f"{file}: {_contents(manifest)}, {size:,} bytes")
    for what, keys in (("not in the store", manifest.missing), ("damaged", manifest.damaged)):
        for key in keys:
            typer.echo(f"warning: {key} is {what}", err=True)


def restore(
    file: Annotated[str, typer.Argument(help="What mlhf backup wrote: a file, or s3://….")],
    data_dir: DataDir = None,
    check: Annotated[bool, typer.Option("--check", help="Verify the file only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty service, on this database or another."""
    from mlhf_service.backup import bucket
    from mlhf_service.backup.archive import verify
    from mlhf_service.backup.restore import restore as restore_backup
    from mlhf_service.data_folder import prepare
    from mlhf_service.database import Database
    from mlhf_service.storage.factory import open_storage

    settings = settings_with(data_dir=data_dir)
    if check:
        with bucket.to_read(file, settings) as path:
            manifest = verify(path)
        if as_json:
            connection.print_json({"file": file, **_json(manifest)})
        else:
            typer.echo(f"{file} is whole: {_contents(manifest)}")
        return
    prepare(settings)
    database = Database(settings.database)
    try:
        with bucket.to_read(file, settings) as path:
            manifest = restore_backup(settings, database, open_storage(settings), path)
    finally:
        database.dispose()
    if as_json:
        connection.print_json({"file": file, **_json(manifest)})
        return
    typer.echo(f"restored {_contents(manifest)}, as of {manifest.created_at}")
    present = settings.public()
    for name, value in manifest.settings.items():
        if name not in _LOCAL and name in present and present[name] != value:
            typer.echo(f"note: MLHF_{name.upper()} was {value}, and is {present[name]} here")


def _json(manifest: "Manifest") -> dict[str, Any]:
    return manifest.model_dump(include={"version", "created_at", "rows", "missing", "damaged"})


def _contents(manifest: "Manifest") -> str:
    rows = sum(manifest.rows.values())
    files = sum(1 for name in manifest.members if not name.startswith("tables/"))
    jobs, runs = manifest.rows.get("jobs", 0), manifest.rows.get("runs", 0)
    return f"{jobs} jobs, {runs} runs, {rows} rows in all, {files} files"
