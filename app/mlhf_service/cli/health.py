"""The checks of ``mlhf doctor``."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import typer
from sqlalchemy import inspect, text

from mlhf_service.cli.errors import sentence
from mlhf_service.context import Context
from mlhf_service.data_folder import make_folder
from mlhf_service.database import Database, explained
from mlhf_service.migrate import differences, require_known
from mlhf_service.operations import service as operations
from mlhf_service.queue.celery_app import require_broker
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from mlhf_service.workers.models import Worker


def report(settings: Settings, as_json: bool) -> bool:
    """Print settings and checks; returns whether all checks passed."""
    checks: dict[str, Callable[[Settings], str]] = {
        "data folder": _folder,
        "database": _database,
        "broker": _broker,
        "artifacts": _artifacts,
        "data sets": _datasets,
        "workers": _workers,
    }
    if settings.mlflow_url:
        checks["mlflow"] = _mlflow
    results = {name: _try(check, settings) for name, check in checks.items()}
    if as_json:
        found = {name: {"ok": ok, "detail": detail} for name, (ok, detail) in results.items()}
        typer.echo(json.dumps({"settings": settings.public(), "checks": found}, indent=2))
    else:
        for name, value in settings.public().items():
            typer.echo(f"MLHF_{name.upper():20} {value}")
        typer.echo()
        for name, (ok, detail) in results.items():
            typer.echo(f"{'ok  ' if ok else 'FAIL'} {name}: {detail}")
    return all(ok for ok, _ in results.values())


def _try(check: Callable[[Settings], str], settings: Settings) -> tuple[bool, str]:
    try:
        return True, check(settings)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        return False, sentence(error) or f"{type(error).__name__}: {first_line}"


def _folder(settings: Settings) -> str:
    make_folder(settings.root)
    free = shutil.disk_usage(settings.root).free
    return f"{settings.root}, {free / 2**30:.1f} GiB free"


def _database(settings: Settings) -> str:
    database = Database(settings.database)
    try:
        with explained(database), database.engine.connect() as connection:
            connection.execute(text("select 1"))
            newer = require_known(connection)
            behind = not newer and differences(connection)
        if newer:
            return "answers; its schema is newer than this version, which may go on: upgrade mlhf"
        if behind:
            return "answers; its schema is not up to date: run mlhf migrate"
        return "answers, schema up to date"
    finally:
        database.dispose()


def _broker(settings: Settings) -> str:
    require_broker(settings)
    return "answers"


def _artifacts(settings: Settings) -> str:
    storage = open_storage(settings)
    storage.check()
    return f"{storage.description}, can be used"


def _datasets(settings: Settings) -> str:
    root = settings.datasets_root
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []
    return f"{root}: {', '.join(found) or 'none (digits is built in)'}"


def _mlflow(settings: Settings) -> str:
    """A server that is away is told, and no fault of ours: runs go on without it."""
    from mlhf_service.client.errors import ServiceError
    from mlhf_service.client.mlflow import Mlflow

    try:
        with Mlflow(settings.mlflow_url, timeout=5.0) as server:
            server.check()
    except ServiceError as error:
        return f"{error}; runs are written once it answers"
    return "answers"


def _workers(settings: Settings) -> str:
    database = Database(settings.database)
    try:
        with explained(database), database.read() as session:
            if not inspect(session.get_bind()).has_table(Worker.__tablename__):
                return "the database was never migrated"
            context = Context(session, settings, open_storage(settings))
            found, queue = operations.listed(context), operations.queue(context)
    finally:
        database.dispose()
    states = Counter(one.state for one in found)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
    unfit = "".join(f"; {one.name} is unfit: {one.reason}" for one in found if one.reason)
    return f"{told}; {queue.waiting_in_all} runs wait{unfit}"


def describe(path: Path) -> str:
    """A path as short as it can be shown."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
