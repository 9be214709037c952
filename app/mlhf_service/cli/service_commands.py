"""Commands that keep a service: serve, api, worker, migrate, doctor, demo."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:  # slow to import: each command imports what it needs
    from mlhf_service.settings import Settings

DataDir = Annotated[Path | None, typer.Option(help="Folder for all state. [default: .mlhf]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [default: 8000]")]


def add_to(cli: typer.Typer) -> None:
    cli.command()(serve)
    cli.command()(api)
    cli.command()(worker)
    cli.command()(migrate)
    cli.command()(doctor)
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
) -> None:
    """Run everything in one place: migrations, API, workers, sweeper."""
    settings = settings_with(
        host=host, port=port, data_dir=data_dir, workers=workers, threads=threads
    )
    _require_loopback(settings)
    queue = "gpu" if settings.has_gpu else "cpu"
    _supervise(settings, api=True, queues=[queue] * settings.workers, embedded=True)


def api(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the HTTP API alone, for a deployment with workers elsewhere."""
    settings = settings_with(host=host, port=port, data_dir=data_dir)
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


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the present schema."""
    from mlhf_service.database import Database
    from mlhf_service.migrate import migrate as upgrade

    settings = settings_with(data_dir=data_dir)
    database = Database(settings.database)
    upgrade(database)
    typer.echo(f"{database.url.render_as_string(hide_password=True)} is up to date.")
    database.dispose()


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
    from mlhf_service.deployment import Supervisor

    logging.basicConfig(level=logging.WARNING, format="mlhf: %(message)s")
    Supervisor(settings, api=api, queues=queues, embedded=embedded).run()


def _require_loopback(settings: "Settings") -> None:
    from mlhf_service.errors import StartError
    from mlhf_service.settings import LOOPBACK

    if settings.auth == "off" and settings.host not in LOOPBACK:
        raise StartError(
            f"Without keys the service listens on this machine only, not on {settings.host}. "
            "Use --host 127.0.0.1, and a tunnel or a proxy with its own log-in in front."
        )
