"""The audit log: what changed something and what was refused; and no secret, anywhere."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import inspect, text, update

from mlhf_service.audit import service
from mlhf_service.audit.models import AuditEntry
from mlhf_service.database import Database, now
from mlhf_service.keys.schemas import NewKey
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from mlhf_service.upkeep import Upkeep
from tests.app.keys.conftest import MakeKey, bearer

As = Callable[[NewKey], TestClient]
SPEC = {
    "kind": "train",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam"},
    "budget": {"steps": 1},
}


def entries(database: Database, **chosen: str) -> list[tuple[str, str | None, int]]:
    with database.read() as session:
        found = session.scalars(service.search(**chosen)).all()
        return [(one.method, one.route, one.status) for one in sorted(found, key=lambda e: e.id)]


def test_what_changes_something_is_noted(as_: As, make_key: MakeKey, database: Database) -> None:
    key, admin = make_key("write", name="ci"), make_key("admin")
    client = as_(key)
    job = client.post("/v1/jobs", json=SPEC).json()["id"]
    client.post(f"/v1/jobs/{job}/cancel", headers={"X-Request-Id": "mine-1"})
    client.post("/v1/jobs", json={})
    client.get("/v1/jobs")
    assert entries(database) == [
        ("POST", "/v1/jobs", 201),
        ("POST", "/v1/jobs/{job_id}/cancel", 200),
        ("POST", "/v1/jobs", 422),
    ]
    shown = as_(admin).get("/v1/audit", params={"key_id": key.id}).json()["data"]
    assert [one["decision"] for one in shown] == ["failed", "done", "done"]
    cancelled = shown[1]
    assert cancelled["path"] == f"/v1/jobs/{job}/cancel"
    assert (cancelled["tenant"], cancelled["name"]) == ("a", "ci")
    assert cancelled["address"] == "testclient"
    assert cancelled["request_id"] == "mine-1"


def test_what_is_refused_is_noted(
    client: TestClient, as_: As, make_key: MakeKey, database: Database
) -> None:
    reader = make_key("read")
    client.get("/v1/jobs")
    client.get("/v1/../etc/%00?secret=1", headers=bearer("mlhf_wrong"))
    as_(reader).post("/v1/jobs", json=SPEC)
    as_(reader).get("/v1/keys")
    assert [status for _, _, status in entries(database, decision="refused")] == [
        401,
        401,
        403,
        403,
    ]
    with database.read() as session:
        nobody = session.scalars(service.search(tenant="")).all()
    assert {one.key_id for one in nobody} == {None}
    assert not any("secret" in one.path for one in nobody)


def test_tenants_see_their_own_log(as_: As, make_key: MakeKey, client: TestClient) -> None:
    a, b = make_key("admin"), make_key("admin", tenant="b")
    client.get("/v1/jobs")
    as_(a).post("/v1/keys", json={"name": "x"})
    assert len(as_(a).get("/v1/audit").json()["data"]) == 1
    assert as_(b).get("/v1/audit").json()["data"] == []
    assert as_(make_key("write")).get("/v1/audit").status_code == 403


def test_entries_go_by_time(
    as_: As,
    make_key: MakeKey,
    database: Database,
    settings: Settings,
) -> None:
    """A supervisor removes them, whether or not anything is asked any more."""
    client = as_(make_key("write"))
    for _ in range(2):
        client.post("/v1/jobs", json={})
    with database.engine.begin() as connection:
        oldest = connection.scalar(text("select min(id) from audit_log"))
        moment = now() - timedelta(settings.audit_days, minutes=1)
        statement = update(AuditEntry).where(AuditEntry.id == oldest).values(at=moment)
        connection.execute(statement)
    upkeep = Upkeep(settings, database, open_storage(settings))
    upkeep.pass_once()
    assert len(entries(database)) == 2, "not at every pass"
    upkeep._seldom_at = time.monotonic()
    upkeep.pass_once()
    assert len(entries(database)) == 1


def test_no_secret_is_anywhere(
    as_: As,
    client: TestClient,
    make_key: MakeKey,
    database: Database,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A key is sent in every way a client may, rightly and wrongly; then all is searched."""
    caplog.set_level(logging.DEBUG)
    key = make_key("admin", name="canary")
    canary = key.secret.rpartition("_")[2]
    own = {"Origin": "http://127.0.0.1"}
    answers = [
        as_(key).post("/v1/jobs", json=SPEC),
        as_(key).post("/v1/jobs", json={"wrong": 1}),
        as_(key).get("/v1/keys"),
        as_(key).get("/v1/audit"),
        as_(key).get("/metrics"),
        client.get("/v1/jobs", headers={"Authorization": f"Basic {key.secret}"}),
        client.get("/v1/jobs", headers={"Authorization": key.secret}),
        client.get("/v1/jobs", headers=bearer(key.secret + "x")),
        client.post("/login", data={"key": key.secret + "x"}, headers=own),
        client.post("/login", data={"key": key.secret}, headers=own),
        client.get("/keys", headers={"Accept": "text/html"}),
    ]
    for answer in answers:
        assert canary not in answer.text
        assert canary not in str(answer.headers)
    assert canary not in caplog.text
    assert canary not in "".join(capfd.readouterr())
    with database.engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            assert canary not in str(connection.execute(text(f"select * from {table}")).all()), (
                table
            )
    for path in settings.root.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path


def test_secrets_among_the_settings_are_not_shown() -> None:
    canary = "canary-" + "c" * 32
    settings = Settings(
        _env_file=None,
        session_secret=canary,
        oidc_client_secret=canary,
        rate_limit_storage=f"redis://:{canary}@127.0.0.1/0",
    )
    assert canary not in str(settings.public())
    assert canary not in repr(settings).replace(settings.rate_limit_storage, "")
    assert settings.environment()["MLHF_SESSION_SECRET"] == canary
