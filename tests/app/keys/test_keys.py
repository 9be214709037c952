"""Keys: made, shown once, stored as a digest, ended, rotated; each scope may what it says."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlhf_service.database import Database, now
from mlhf_service.keys import secrets, service
from mlhf_service.keys.models import ApiKey, KeySecret
from mlhf_service.keys.schemas import NewKey
from tests.app.keys.conftest import MakeKey, bearer, forget

As = Callable[[NewKey], TestClient]


def test_a_key_can_be_recognised_and_its_secret_is_not_stored(
    make_key: MakeKey, database: Database
) -> None:
    key = make_key()
    assert secrets.lookup_of(key.secret) is not None
    assert key.secret.startswith(key.prefixes[0])
    secret = key.secret.removeprefix(key.prefixes[0])
    assert len(secret) == 43
    with database.engine.connect() as connection:
        for table in ("api_keys", "api_key_secrets"):
            rows = str(connection.execute(text(f"select * from {table}")).all())
            assert secret not in rows
    assert make_key().secret != key.secret


def test_without_a_key_nothing_is_answered(client: TestClient) -> None:
    for path in ("/v1/jobs", "/v1/nothing", "/v1/keys", "/metrics", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code in (200, 503)
    assert client.get("/static/style.css").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer",
        "Bearer ",
        "Bearer mlhf_x",
        "Basic dXNlcjpwYXNz",
        "Bearer mlhf_aaaaaaaaaaaa_" + "A" * 43,
        "Bearer " + "A" * 5000,
        "Bearer mlhf_aaaaaaaaaaaa_" + "A" * 43 + "' or 1=1",
        "Bearer \u00e9".encode("latin-1"),
    ],
)
def test_what_is_no_key_is_refused(client: TestClient, sent: str | bytes) -> None:
    answer = client.get("/v1/jobs", headers={"Authorization": sent})
    assert answer.status_code == 401


def test_another_secret_of_a_known_key_is_refused(client: TestClient, make_key: MakeKey) -> None:
    key = make_key()
    wrong = key.secret[:-1] + ("A" if key.secret[-1] != "A" else "B")
    assert client.get("/v1/jobs", headers=bearer(wrong)).status_code == 401
    assert client.get("/v1/jobs", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ("read", {"read": 200, "write": 403, "admin": 403, "metrics": 403}),
        ("write", {"read": 200, "write": 422, "admin": 403, "metrics": 403}),
        ("admin", {"read": 200, "write": 422, "admin": 200, "metrics": 200}),
        ("metrics", {"read": 403, "write": 403, "admin": 403, "metrics": 200}),
    ],
)
def test_a_scope_may_what_it_says(
    as_: As, make_key: MakeKey, scope: str, status: dict[str, int]
) -> None:
    client = as_(make_key(scope))
    assert client.get("/v1/jobs").status_code == status["read"]
    assert client.post("/v1/jobs", json={}).status_code == status["write"]
    assert client.get("/v1/keys").status_code == status["admin"]
    assert client.get("/metrics").status_code == status["metrics"]


def test_a_refusal_names_the_scope(as_: As, make_key: MakeKey) -> None:
    answer = as_(make_key("read")).post("/v1/jobs", json={})
    assert "needs the scope write" in answer.json()["detail"]


def test_an_expired_and_a_revoked_key_are_refused(
    app: FastAPI, as_: As, make_key: MakeKey, database: Database
) -> None:
    key, admin = make_key(), make_key("admin")
    client = as_(key)
    assert client.get("/v1/jobs").status_code == 200
    with database.write() as session:
        session.get_one(ApiKey, key.id).expires_at = now() - timedelta(seconds=1)
    forget(app)
    assert client.get("/v1/jobs").status_code == 401

    other = make_key()
    assert as_(other).get("/v1/jobs").status_code == 200
    revoked = as_(admin).delete(f"/v1/keys/{other.id}")
    assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")
    forget(app)
    assert as_(other).get("/v1/jobs").status_code == 401
    assert as_(admin).delete(f"/v1/keys/{other.id}").status_code == 200
    assert as_(admin).post(f"/v1/keys/{other.id}/rotate").status_code == 409
    assert as_(admin).delete(f"/v1/keys/{admin.id}").status_code == 409


def test_a_rotated_key_has_two_secrets_for_a_while(
    app: FastAPI, as_: As, make_key: MakeKey, database: Database
) -> None:
    key, admin = make_key(), make_key("admin")
    answer = as_(admin).post(f"/v1/keys/{key.id}/rotate", json={"overlap_seconds": 600})
    assert answer.status_code == 200
    rotated = NewKey(**answer.json())
    assert rotated.id == key.id
    assert rotated.secret != key.secret
    assert len(rotated.prefixes) == 2
    for secret in (key, rotated):
        assert as_(secret).get("/v1/jobs").status_code == 200
    with database.write() as session:
        old = session.get_one(KeySecret, secrets.lookup_of(key.secret))
        assert old.expires_at is not None
        assert timedelta(seconds=500) < old.expires_at - now() <= timedelta(seconds=600)
        old.expires_at = now()
    forget(app)
    assert as_(key).get("/v1/jobs").status_code == 401
    assert as_(rotated).get("/v1/jobs").status_code == 200


def test_an_admin_makes_keys_of_the_own_tenant(as_: As, make_key: MakeKey) -> None:
    admin, other = make_key("admin"), make_key("admin", tenant="b")
    answer = as_(admin).post("/v1/keys", json={"name": "ci", "scopes": ["write"]})
    assert answer.status_code == 201
    made = NewKey(**answer.json())
    assert answer.headers["location"] == f"/v1/keys/{made.id}"
    assert (made.tenant, made.created_by) == ("a", admin.id)
    assert as_(made).get("/v1/me").json() == {
        "tenant": "a",
        "key_id": made.id,
        "name": "ci",
        "scopes": ["write"],
    }
    listed = as_(admin).get("/v1/keys").json()["data"]
    assert [one["id"] for one in listed] == [made.id, admin.id]
    assert not any("secret" in one for one in listed)
    for answer in (
        as_(other).get(f"/v1/keys/{made.id}"),
        as_(other).delete(f"/v1/keys/{made.id}"),
        as_(other).post(f"/v1/keys/{made.id}/rotate"),
    ):
        assert answer.status_code == 404
    assert [one["id"] for one in as_(other).get("/v1/keys").json()["data"]] == [other.id]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "tenant": "b"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "expires_at": "2001-01-01T00:00:00Z"},
        {"name": "x", "expires_at": "2101-01-01T00:00:00"},
        {"name": "x\u202e"},
        {"name": "x", "quota": {"jobs": -1}},
        {"name": "x", "quota": {"jobs": 2**80}},
    ],
)
def test_keys_that_cannot_be_are_refused(
    as_: As, make_key: MakeKey, body: dict[str, object]
) -> None:
    assert as_(make_key("admin")).post("/v1/keys", json=body).status_code == 422


def test_use_is_recorded(as_: As, make_key: MakeKey, database: Database) -> None:
    key = make_key()
    as_(key).get("/v1/jobs")
    with database.read() as session:
        used = service.find(session, key.id).last_used_at
    assert used is not None
    assert now() - used < timedelta(minutes=1)


def test_the_first_key_is_made_once(database: Database) -> None:
    with database.write() as session:
        first = service.create_first(session)
        assert first is not None
        assert first.scopes == ["admin"]
        assert service.create_first(session) is None
        service.revoke(session, first.id)
        assert service.create_first(session) is not None
