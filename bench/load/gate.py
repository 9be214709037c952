"""What the gate costs a request: with keys and without, in one process, by the database's kind.

    python -m bench.load.gate [--requests 2000] [--database URL]

The application is called in its own process, without a network, so that little else is measured.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.keys import service
from mlhf_service.main import create_app
from mlhf_service.migrate import migrate
from mlhf_service.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.gate")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--database", default="", help="Default: SQLite in a folder of its own.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for auth in ("off", "keys"):
            settings = Settings(
                _env_file=None,
                data_dir=Path(folder),
                database_url=options.database,
                auth=auth,
                rate_limit_reads="100000000/hour",
            )
            measure(settings, options.requests)


def measure(settings: Settings, requests: int) -> None:
    database = Database(settings.database)
    migrate(database)
    with database.write() as session:
        key = service.create(session, name="bench", tenant="bench", scopes=["read"])
    headers = {"Authorization": f"Bearer {key.secret}"} if settings.auth == "keys" else {}
    client = TestClient(create_app(settings), base_url="http://127.0.0.1", headers=headers)
    for path in ("/v1/optimizers/adam", "/v1/jobs?limit=1"):
        seconds = []
        for _ in range(requests):
            began = time.perf_counter()
            client.get(path).raise_for_status()
            seconds.append(time.perf_counter() - began)
        middle, slow = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
        print(
            f"auth={settings.auth:4} {path:22} median {1000 * middle:.2f} ms, "
            f"p95 {1000 * slow:.2f} ms"
        )
    database.dispose()


if __name__ == "__main__":
    main()
