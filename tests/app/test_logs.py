"""Logs: every line has its ids, whoever wrote it, and no line has a secret."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlhf_service import logs
from mlhf_service.child import Child
from mlhf_service.settings import Settings
from tests.waiting import until

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def root_logger() -> Iterator[None]:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@pytest.fixture
def lines(root_logger: None) -> Lines:
    """What was logged, as JSON."""
    stream = io.StringIO()
    logs.configure("json", process="test", stream=stream, secrets=["s3cr3t-pass"])
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("name", ["mlhf_service.x", "uvicorn.error", "celery.worker", "sqlalchemy"])
def test_every_line_has_the_ids_that_are_bound(lines: Lines, name: str) -> None:
    log = logging.getLogger(name)
    with logs.bound(request_id="req_1", run_id="run_1", key_id=None):
        log.warning("seen %s", "it")
    log.error("after")
    first, second = lines()
    assert first["message"] == "seen it"
    assert (first["level"], first["logger"], first["process"]) == ("warning", name, "test")
    assert (first["request_id"], first["run_id"]) == ("req_1", "run_1")
    assert "key_id" not in first
    assert first["timestamp"].endswith("Z")
    assert "request_id" not in second


def test_an_error_is_one_line(lines: Lines) -> None:
    try:
        raise ValueError("several\nlines")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = lines()
    assert "Traceback" in line["exception"]
    assert "several\nlines" in line["exception"]


@pytest.mark.parametrize(
    ("message", "hidden"),
    [
        ("postgresql+psycopg://mlhf:hunter2@db:5432/mlhf does not answer", "hunter2"),
        ("redis://:hunter2@r:6379", "hunter2"),
        ("it was s3cr3t-pass", "s3cr3t-pass"),
        (f"the key mlhf_{'a' * 12}_{'B' * 43} is old", "B" * 43),
        ("Authorization: Bearer mlhf_0123456789abcdef", "0123456789abcdef"),
    ],
)
def test_no_line_shows_a_secret(lines: Lines, message: str, hidden: str) -> None:
    logging.getLogger("x").warning(message)
    logging.getLogger("x").warning("%s token=hunter2", {"note": [message], "password": "hunter2"})
    try:
        raise RuntimeError(message)
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    with logs.bound(url=message, token="hunter2"):
        logging.getLogger("x").warning("bound")
    assert len(lines()) == 4
    assert hidden not in json.dumps(lines())
    assert "hunter2" not in json.dumps(lines())


def test_text_is_for_people(root_logger: None) -> None:
    stream = io.StringIO()
    logs.configure("text", process="api", stream=stream)
    with logs.bound(run_id="run_1"):
        logging.getLogger("x").warning("a message")
    assert "a message" in stream.getvalue()
    assert "run_id=run_1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_the_settings_say_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-bucket")
    settings = Settings(
        _env_file=None,
        database_url="postgresql+psycopg://a:of-the-database@h/d",
        broker_url="redis://:of-the-broker@h/0",
    )
    assert set(settings.secrets()) == {"of-the-bucket", "of-the-database", "of-the-broker"}


_PRINTS = """
import sys
from pathlib import Path
from mlhf_service.child import Child
child = Child("c", [sys.executable, "-c", "print('hello')"], {}, None)
child.start()
child.process.wait()
child.collect()
"""


def test_a_child_in_a_container_prints_where_its_parent_does() -> None:
    ended = subprocess.run([sys.executable, "-c", _PRINTS], capture_output=True, text=True)
    assert ended.stdout == "hello\n", ended.stderr


def test_a_child_elsewhere_prints_into_its_file(tmp_path: Path) -> None:
    child = Child("c", [sys.executable, "-c", "print('hello')"], {}, tmp_path)
    child.start()
    until(lambda: child.collect() == 0, "it did not end")
    assert (tmp_path / "c.log").read_text() == "hello\n"
