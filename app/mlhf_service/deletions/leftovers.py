"""What processes that were killed left in a data folder: spools and uploads."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select

from mlhf_service.database import Database
from mlhf_service.deletions.orphans import Swept
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings


def sweep(database: Database, settings: Settings, *, dry_run: bool = False) -> Swept:
    """Delete what nobody has touched for ``orphan_seconds``, and no attempt that runs uses."""
    swept = Swept()
    before = time.time() - settings.orphan_seconds
    spools = [path for path in settings.spool_dir.glob("run_*-*") if _touched(path) < before]
    for path in [*_ended(database, spools), *_abandoned(settings, before)]:
        swept.add(_size(path))
        if not dry_run:
            _remove(path)
    return swept


def _ended(database: Database, spools: list[Path]) -> Iterator[Path]:
    """The folders of attempts that have ended. An attempt is running before it has a folder."""
    for path in spools:
        run_id, _, attempt = path.name.rpartition("-")
        with database.read() as session:
            running = Run.id == run_id, Run.status == "running"
            present = session.scalar(select(Run.attempt).where(*running))
        if str(present) != attempt:
            yield path


def _abandoned(settings: Settings, before: float) -> Iterator[Path]:
    for pattern in ("uploads/*", "spool/.probe-*"):
        for path in settings.root.glob(pattern):
            if _touched(path) < before:
                yield path


def _touched(path: Path) -> float:
    """When anything in it last changed."""
    times = [0.0]
    for each in (path, *path.rglob("*")):
        with suppress(OSError):  # deleted meanwhile
            times.append(each.stat().st_mtime)
    return max(times)


def _size(path: Path) -> int:
    total = 0
    for each in (path, *path.rglob("*")):
        with suppress(OSError):
            total += each.lstat().st_size
    return total


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
