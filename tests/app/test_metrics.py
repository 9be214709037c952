"""What Prometheus is told: by the API, and by the processes of a supervisor together."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch
from urllib.request import urlopen

from fastapi.testclient import TestClient

from mlhf_service import measures, measures_folder, metrics
from mlhf_service.database import now
from tests.app.conftest import Rows
from tests.waiting import until


def _value(text: str, name: str) -> float:
    return next(float(line[len(name) :]) for line in text.splitlines() if line.startswith(name))


def test_requests_are_counted_by_route_in_full(client: TestClient, rows: Rows) -> None:
    names = [
        'mlhf_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} ',
        'mlhf_http_requests_total{method="GET",route="/jobs/{job_id}",status="200"} ',
        'mlhf_http_requests_total{method="GET",route="unmatched",status="404"} ',
        'mlhf_http_requests_total{method="HEAD",route="/v1/jobs",status="200"} ',
    ]
    job_id = rows.job()

    def ask() -> str:
        client.get(f"/v1/jobs/{job_id}")
        client.get(f"/jobs/{job_id}")
        client.get("/nowhere")
        client.head("/v1/jobs")
        return client.get("/metrics").text

    before, after = ask(), ask()
    for name in names:
        assert _value(after, name) == _value(before, name) + 1, name


def test_the_queue_is_told_by_depth_and_age(client: TestClient, rows: Rows) -> None:
    job_id = rows.job(status="queued")
    for position in range(3):
        rows.run(job_id, position=position, status="queued", created_at=now())
    rows.run(job_id, position=3, status="queued", available_at=4e9)
    text = client.get("/metrics").text
    assert _value(text, 'mlhf_queue_depth{queue="cpu"} ') == 3
    assert 0 <= _value(text, 'mlhf_queue_age_seconds{queue="cpu"} ') < 300
    assert _value(text, 'mlhf_runs{status="queued"} ') == 4
    assert _value(text, "mlhf_database_up ") == 1
    assert _value(text, 'mlhf_disk_free_bytes{folder="data"} ') > 0
    assert "mlhf_workers" in text


def test_what_has_ended_is_counted_again_after_a_while_only(client: TestClient, rows: Rows) -> None:
    def count(status: str) -> float:
        return _value(client.get("/metrics").text, f'mlhf_runs{{status="{status}"}} ')

    job_id = rows.job(status="running")
    rows.run(job_id, position=0, status="succeeded")
    until(lambda: count("succeeded") == 1, "it was never counted")
    with patch.object(metrics, "_RARELY", 1e9):
        for position in (1, 2):
            rows.run(job_id, position=position, status="succeeded")
            rows.run(job_id, position=10 + position, status="running")
            until(lambda: count("succeeded") == 2, "it was never counted")
            assert count("running") == position  # always as it is
    assert count("succeeded") == 2


def test_a_database_that_is_away_is_told_and_no_error(client: TestClient) -> None:
    client.app.state.database.engine.dispose()  # type: ignore[attr-defined]
    engine = client.app.state.database.engine  # type: ignore[attr-defined]
    engine.connect = lambda: (_ for _ in ()).throw(_away())
    response = client.get("/metrics")
    assert response.status_code == 200
    assert "mlhf_database_up 0.0" in response.text


def _away() -> Exception:
    from sqlalchemy.exc import OperationalError

    return OperationalError("select 1", {}, Exception("away"))


def test_processes_of_a_supervisor_share_what_they_measure(tmp_path: Path) -> None:
    environment = dict(os.environ)
    stale = tmp_path / "measures-999999999"
    stale.mkdir()
    folder = measures_folder.share(tmp_path, environment)
    assert not stale.exists()
    count = "from mlhf_service import measures; measures.LEASES_EXPIRED.inc({}); print({})"
    for amount, shown in ((2, 0), (3, "measures.text().decode()")):
        code = count.format(amount, shown)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert _value(done.stdout, "mlhf_leases_expired_total ") == 5
    assert folder.is_dir()


def test_a_port_of_its_own_answers_prometheus() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    stop = measures.serve("127.0.0.1", port)
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            assert b"mlhf_claim_seconds" in response.read()
    finally:
        stop()
