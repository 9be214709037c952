"""Search of runs at scale: filters and sorting by metrics and hyperparameters, over HTTP in one
process.

    python -m bench.load.search [--runs 100000] [--folder FOLDER] [--times 30]

Prints, for each request, the median and the 95th percentile in milliseconds, of wall time and of
this process's CPU time.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from bench.load.fill import fill, settle
from mlhf_service.database import Database
from mlhf_service.main import create_app
from mlhf_service.migrate import migrate
from mlhf_service.runs import values
from mlhf_service.runs.models import Run
from mlhf_service.runs.values import RunValue
from mlhf_service.settings import Settings

QUERIES = {
    "newest": "",
    "sort by best metric": "sort=test_loss.best",
    "sort by hyperparameter": "sort=-optimizer.lr",
    "sort by seconds": "sort=-seconds",
    "second page by metric": "sort=test_loss.best&limit=500",
    "filter: half match": "filter=test_loss.best < 0.5",
    "filter: few match": "filter=test_loss.best < 0.0001",
    "filter: none match": "filter=test_loss.best < -1",
    "filter: by hyperparameter": "filter=optimizer.lr < 0.001",
    "filter and sort": "filter=optimizer.lr < 0.001 and status = succeeded&sort=test_loss.best",
    "two rare together": "filter=test_loss.best < 0.01 and optimizer.lr > 0.09",
    "fields": "FIELDS",
}


def add_values(database: Database, seed: int = 0) -> int:
    """Derive the values of all runs, with learning rates of their own. Returns how many."""
    chance, last, count = random.Random(seed), "", 0
    while True:
        with database.write() as session:
            runs = session.scalars(select(Run).where(Run.id > last).order_by(Run.id).limit(1000))
            found = list(runs)
            if not found:
                return count
            rows = []
            for run in found:
                flat = values.of_run(run) | {"optimizer.lr": 10 ** chance.uniform(-4, -1)}
                rows += values.rows(run, flat)
            session.execute(insert(RunValue), rows)
            last, count = found[-1].id, count + len(rows)
            session.expunge_all()


def measure(client: TestClient, path: str, times: int) -> tuple[list[float], list[float]]:
    """Wall and CPU milliseconds of each of so many requests."""
    wall, cpu = [], []
    for _ in range(times + 1):
        began, used = time.perf_counter(), time.process_time()
        response = client.get(path)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - used))
        assert response.status_code == 200, response.text[:300]
    return wall[1:], cpu[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mlhf-search-"))
    settings = Settings(_env_file=None, data_dir=folder)
    database = Database(settings.database)
    if not (folder / "filled").exists():
        migrate(database)
        fill(database, options.runs)
        print(f"{add_values(database):,} values", flush=True)
        settle(database)
        (folder / "filled").touch()
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        print(f"{'request':28} {'p50':>8} {'p95':>8} {'CPU p50':>8} {'CPU p95':>8}  ms")
        for name, query in QUERIES.items():
            path = "/v1/runs/fields" if query == "FIELDS" else f"/v1/runs?{query}"
            wall, cpu = measure(client, path, options.times)
            shown = [f(each) for each in (wall, cpu) for f in (statistics.median, _p95)]
            print(f"{name:28} " + " ".join(f"{value:8.1f}" for value in shown), flush=True)


def _p95(found: list[float]) -> float:
    return sorted(found)[int(0.95 * (len(found) - 1))]


if __name__ == "__main__":
    main()
