"""Commands that keep a service: serve, api, worker, migrate, doctor, demo."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import AsJson

if TYPE_CHECKING:  # slow to import: each command imports what it needs
    from mlhf_service.settings import Settings

DataDir = Annotated[Path | None, typer.Option(help="Folder for all state. [default: .mlhf]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [default: 8000]")]

ApiProcesses = Annotated[int | None, typer.Option(help="Processes that answer HTTP. [default: 1]")]


def add_to(cli: typer.Typer) -> None:
    cli.command()(serve)
    cli.command()(api)
    cli.command()(worker)
    cli.command()(migrate)
    cli.command()(gc)
    cli.command()(doctor)
    cli.command()(health)
    cli.command()(demo)


def settings_with(**given: Any) -> "Settings":
    """The settings, overridden by what the command line gives."""
    from mlhf_service.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(help="Trainers at once. [default: 1]")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each trainer.")] = None,
    api_processes: ApiProcesses = None,
) -> None:
    """Run everything in one place: migrations, API, workers, sweeper."""
    settings = settings_with(
        host=host,
        port=port,
        data_dir=data_dir,
        workers=workers,
        threads=threads,
        api_processes=api_processes,
    )
    _require_loopback(settings)
    queue = "gpu" if settings.has_gpu else "cpu"
    _supervise(settings, api=True, queues=[queue] * settings.workers, embedded=True)


def api(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    processes: ApiProcesses = None,
) -> None:
    """Run the HTTP API alone, for a deployment with workers elsewhere."""
    settings = settings_with(host=host, port=port, data_dir=data_dir, api_processes=processes)
    _require_loopback(settings)
    _supervise(settings, api=True, queues=[], embedded=False)


def worker(
    queue: Annotated[Literal["cpu", "gpu"], typer.Option(help="Which runs to train.")] = "cpu",
    workers: Annotated[int | None, typer.Option(help="Trainers at once. [default: 1]")] = None,
    data_dir: DataDir = None,
) -> None:
    """Run workers alone, with a sweeper."""
    settings = settings_with(workers=workers, data_dir=data_dir)
    _supervise(settings, api=False, queues=[queue] * settings.workers, embedded=False)


def migrate(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the database to the present schema."""
    from mlhf_service.database import Database
    from mlhf_service.migrate import migrate as upgrade

    settings = settings_with(data_dir=data_dir)
    database = Database(settings.database)
    upgrade(database)
    shown = database.url.render_as_string(hide_password=True)
    database.dispose()
    if as_json:
        connection.print_json({"database": shown})
    else:
        typer.echo(f"{shown} is up to date.")


def gc(
    data_dir: DataDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete files that nothing names any more, as the service does by itself every few hours."""
    from datetime import timedelta

    from mlhf_service.database import Database, explained, now
    from mlhf_service.deletions import leftovers, orphans
    from mlhf_service.storage.factory import open_storage

    settings = settings_with(data_dir=data_dir)
    database, storage = Database(settings.database), open_storage(settings)
    before = now() - timedelta(seconds=settings.orphan_seconds)
    with explained(database):
        found = {
            storage.description: orphans.sweep(database, storage, before, dry_run=dry_run),
            str(settings.root): leftovers.sweep(database, settings, dry_run=dry_run),
        }
    database.dispose()
    if as_json:
        places = {
            place: {"files": swept.files, "bytes": swept.size} for place, swept in found.items()
        }
        connection.print_json({"dry_run": dry_run, "places": places})
        return
    verb = "would be deleted from" if dry_run else "deleted from"
    for place, swept in found.items():
        typer.echo(f"{swept.files} files or folders, {swept.size:,} bytes, {verb} {place}.")


def health(
    part: Annotated[Literal["api", "worker"], typer.Argument(help="Which part to ask.")],
    port: Port = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Exit with 0 where the API or the workers here live: for health checks of containers."""
    from mlhf_service.cli import liveness

    liveness.require(part, settings_with(port=port, data_dir=data_dir))
    typer.echo('{"alive": true}' if as_json else "alive")


def doctor(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the settings in force, and check database, broker and folders."""
    from mlhf_service.cli import health

    if not health.report(settings_with(data_dir=data_dir), as_json):
        raise typer.Exit(1)


def demo(
    data_dir: DataDir = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo-output"),
    seeds: Annotated[int, typer.Option(min=2, max=16, help="Seeds of each optimizer.")] = 2,
    epochs: Annotated[int, typer.Option(min=1, max=200)] = 25,
) -> None:
    """Compare optimizers on handwritten digits, through a service of its own."""
    from mlhf_service.cli import demo as demonstration

    demonstration.run(settings_with(data_dir=data_dir), output, seeds, epochs)


def _supervise(settings: "Settings", *, api: bool, queues: list[str], embedded: bool) -> None:
    from mlhf_service import logs, measures_folder
    from mlhf_service.data_folder import prepare

    prepare(settings)
    measures_folder.share(settings.root / "tmp")  # before anything that measures is imported
    from mlhf_service.deployment import Supervisor

    if settings.log_format == "json":
        logs.configure("json", process="supervisor", secrets=settings.secrets())
    else:
        logging.basicConfig(level=logging.WARNING, format="mlhf: %(message)s")
    Supervisor(settings, api=api, queues=queues, embedded=embedded).run()


def _require_loopback(settings: "Settings") -> None:
    from mlhf_service.errors import StartError
    from mlhf_service.settings import LOOPBACK

    if settings.auth == "off" and settings.host not in LOOPBACK:
        raise StartError(
            f"Without keys the service listens on this machine only, not on {settings.host}. "
            "Use --host 127.0.0.1, or ask for keys: MLHF_AUTH=keys, and mlhf keys create."
        )
