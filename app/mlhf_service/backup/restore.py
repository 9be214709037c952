"""Restore a backup into an empty service, on this database or another."""

import gzip
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, func, select, text

from mlhf_service.backup import rows
from mlhf_service.backup.archive import FILES, FOLDERS, TABLES, Manifest, members, verify
from mlhf_service.database import Database, explained
from mlhf_service.errors import StartError
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.state import settle
from mlhf_service.migrate import known_revisions, migrate
from mlhf_service.queue.finish import Outcome, end_attempt
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage


def restore(settings: Settings, database: Database, storage: Storage, path: Path) -> Manifest:
    """Restore a backup, migrate it, and queue what was running: it goes on from its checkpoint.

    The whole archive is verified before anything is changed. Files come first, then the rows in
    one transaction. Raises StartError for a damaged archive, one of a newer version, and a target
    that is not empty.
    """
    manifest = verify(path)
    if manifest.schema_revision not in known_revisions():
        raise StartError(
            f"{path} was written by a newer version of MLHF (schema {manifest.schema_revision}). "
            "Upgrade mlhf, then restore it."
        )
    if next(iter(storage.list()), None) is not None:
        raise StartError(
            f"There are files in {storage.description}: a backup is restored into an empty "
            "service only."
        )
    with explained(database):
        _require_empty(database, manifest.schema_revision)
        migrate(database, manifest.schema_revision)
        _restore_files(storage, path, manifest)
        _restore_rows(database, path)
        migrate(database)
        _queue_what_ran(database, settings.max_attempts)
    return manifest


def _require_empty(database: Database, revision: str) -> None:
    """Refuse a database with rows; empty tables of another revision are dropped."""
    with database.engine.begin() as connection:
        for table in rows.tables(connection):
            if connection.scalar(select(func.count()).select_from(table)):
                where = database.url.render_as_string(hide_password=True)
                raise StartError(
                    f"There are rows in {table.name} of {where}: a backup is restored into an "
                    "empty service only."
                )
        heads = MigrationContext.configure(connection).get_current_heads()
        if heads and heads != (revision,):
            _drop_all(connection)


def _drop_all(connection: Connection) -> None:
    found = MetaData()
    found.reflect(connection)
    found.drop_all(connection)


def _restore_files(storage: Storage, path: Path, manifest: Manifest) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".restore-") as unpacked:
        folder = Path(unpacked)
        for info, content in members(path):
            if info.name.startswith(FILES):
                stored = storage.put(info.name.removeprefix(FILES), content)  # type: ignore[arg-type]
                if stored.sha256 != manifest.members[info.name].sha256:
                    raise StartError(f"{info.name} changed while it was restored.")
            elif info.name.startswith(FOLDERS):
                target = _inside(folder, info.name.removeprefix(FOLDERS))
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(content, out)
        # Folders have keys of two parts: what they are of, and an id.
        for made in sorted(p for p in folder.glob("*/*") if p.is_dir()):
            storage.put_folder(made.relative_to(folder).as_posix(), made)


def _inside(folder: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or len(pure.parts) < 3:
        raise StartError(f"The backup names a file {name!r} that is none of ours.")
    return folder.joinpath(*pure.parts)


def _restore_rows(database: Database, path: Path) -> None:
    writer = database.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".restore-") as unpacked:
        for info, content in members(path):
            if info.name.startswith(TABLES):
                with (Path(unpacked) / PurePosixPath(info.name).name).open("wb") as out:
                    shutil.copyfileobj(content, out)
        with writer.begin() as connection:
            if not database.is_sqlite:
                connection.execute(text("set local statement_timeout = 0"))
            for table in rows.tables(connection):
                file = Path(unpacked) / f"{table.name}.jsonl.gz"
                if file.exists():
                    with gzip.open(file) as lines:
                        rows.load(connection, table, iter(lines))
                    rows.continue_numbers(connection, table)
        database.sync()


def _queue_what_ran(database: Database, max_attempts: int) -> None:
    """What was training is interrupted, as by the clean stop of a worker."""
    running = select(Run.id, Run.job_id).where(Run.status == "running")
    with database.read() as session:
        found = session.execute(running).all()
    for run_id, job_id in found:
        with database.write() as session:
            job = jobs.lock(session, job_id)
            run = session.get(Run, run_id)
            if job is not None and run is not None:
                end_attempt(session, job, run, Outcome("interrupted", {}), max_attempts)
                settle(session, job)
