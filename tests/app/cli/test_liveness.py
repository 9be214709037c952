"""What health checks of containers ask: it needs neither database nor broker."""

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlhf_service.cli.liveness import require
from mlhf_service.errors import StartError
from mlhf_service.settings import Settings


@pytest.fixture
def api() -> Iterator[http.server.HTTPServer]:
    """Answers with its attribute ``status``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status if self.path == "/healthz" else 500)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.status = 200  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_api_that_answers(api: http.server.HTTPServer, tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, data_dir=tmp_path, host="0.0.0.0", port=api.server_port, auth="keys"
    )
    require("api", settings)
    api.status = 503  # type: ignore[attr-defined]
    with pytest.raises(StartError, match="503"):
        require("api", settings)
    with pytest.raises(StartError, match="does not answer"):
        require("api", settings.model_copy(update={"port": 1}))


def test_workers_that_beat(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    with pytest.raises(StartError, match="No worker"):
        require("worker", settings)
    settings.alive_file.touch()
    require("worker", settings)
    os.utime(settings.alive_file, (time.time() - 200,) * 2)
    with pytest.raises(StartError, match="silent for 200 s"):
        require("worker", settings)
