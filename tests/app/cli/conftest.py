"""Commands against the application, in the test's own process."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from mlhf_service.cli import connection
from mlhf_service.cli.app import cli
from mlhf_service.client import Client

Call = Callable[..., Any]


@pytest.fixture
def call(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command; returns what came of it: ``output``, ``exit_code``, ``exception``."""

    class Connected(Client):
        def close(self) -> None:
            """The test's own client stays open."""

    def connect(url: str, key: str | None) -> Client:
        made = Connected(url)
        made._http.close()
        made._http = client
        return made

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it: no terminal is so wide
    return lambda *arguments, **more: CliRunner().invoke(cli, list(arguments), **more)
