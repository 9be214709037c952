"""Log-in by OpenID Connect, against a provider that checks what providers must."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey
from pydantic import SecretStr
from starlette.requests import Request

from mlhf_service.keys import oidc
from mlhf_service.keys.oidc import LoginFailed, person_of
from mlhf_service.settings import Settings
from tests.app.keys.conftest import forget
from tests.app.keys.oidc_server import CLIENT, SECRET, Provider
from tests.waiting import DEADLINE, until


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """SQLite only: what is tested asks no database."""
    path = tmp_path / "data" / "mlhf.sqlite3"
    path.parent.mkdir()
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    provider = Provider()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    provider.issuer = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(provider.app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started, "the provider did not start")
    yield provider
    server.should_exit = True
    thread.join(DEADLINE)
    listener.close()


@pytest.fixture
def provider(running: Provider) -> Iterator[Provider]:
    claims = running.claims
    yield running
    running.claims, running.token, running.signing_key = claims, {}, running.key


@pytest.fixture
def settings(settings: Settings, running: Provider) -> Settings:
    settings.oidc_issuer = running.issuer
    settings.oidc_client_id = CLIENT
    settings.oidc_client_secret = SecretStr(SECRET)
    settings.oidc_tenant_claim = "org"
    settings.oidc_write_groups = "trainers, staff"
    settings.oidc_admin_groups = "bosses"
    return settings


@pytest.fixture
def browser(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(
        app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False
    ) as client:
        yield client


def there_and_back(browser: TestClient, next_: str = "/datasets") -> str:
    """Go to the provider, and return the address that it sends the browser back to."""
    sent = browser.get("/login/oidc", params={"next": next_})
    assert sent.status_code == 302
    answer = httpx.get(sent.headers["location"])
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


def test_a_person_logs_in(browser: TestClient, provider: Provider) -> None:
    provider.claims = {**provider.claims, "org": "b", "groups": ["trainers"]}
    back = there_and_back(browser)
    assert back.startswith("http://127.0.0.1/login/oidc/callback?code=")
    entered = browser.get(back)
    assert (entered.status_code, entered.headers["location"]) == (303, "/datasets")
    me = browser.get("/v1/me").json()
    assert (me["tenant"], me["scopes"], me["name"]) == ("b", ["write"], "person@example.org")
    assert me["key_id"].startswith("oidc_")
    assert browser.get("/v1/keys").status_code == 403
    own = {"Origin": "http://127.0.0.1"}
    assert browser.post("/v1/jobs", json={}, headers=own).status_code == 422
    assert browser.post("/v1/jobs", json={}).status_code == 403
    assert browser.get(back).status_code == 403  # a code is used once


def test_one_log_in_is_ended_and_no_other(
    app: FastAPI, browser: TestClient, provider: Provider
) -> None:
    provider.claims = {**provider.claims, "org": "b", "groups": ["bosses"]}
    other = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    for each, agent in ((browser, "first"), (other, "second")):
        each.headers["User-Agent"] = agent
        assert each.get(there_and_back(each)).status_code == 303
    found = browser.get("/v1/logins").json()["data"]
    assert [login["agent"] for login in found] == ["second", "first"]
    assert {login["name"] for login in found} == {"person@example.org"}
    own = {"Origin": "http://127.0.0.1"}
    ended = browser.delete(f"/v1/logins/{found[0]['id']}", headers=own)
    assert ended.json()["ended_at"]
    forget(app)
    assert (browser.get("/v1/me").status_code, other.get("/v1/me").status_code) == (200, 401)
    assert [one["agent"] for one in browser.get("/v1/logins").json()["data"]] == ["first"]
    assert browser.delete("/v1/logins/login_unknown", headers=own).status_code == 404


def test_a_copied_cookie_is_worth_nothing_after_a_log_out(
    app: FastAPI, browser: TestClient, provider: Provider
) -> None:
    provider.claims = {**provider.claims, "org": "b", "groups": ["trainers"]}
    browser.get(there_and_back(browser))
    thief = TestClient(app, base_url="http://127.0.0.1", cookies=dict(browser.cookies))
    assert thief.get("/v1/me").status_code == 200
    browser.post("/logout", headers={"Origin": "http://127.0.0.1"})
    forget(app)
    assert thief.get("/v1/me").status_code == 401


def test_the_log_in_page_offers_it(browser: TestClient) -> None:
    assert "/login/oidc?next=%2Fdatasets" in browser.get("/login?next=/datasets").text


def test_another_s_code_is_not_taken(app: FastAPI, browser: TestClient, provider: Provider) -> None:
    """State: a code that this browser did not ask for (log-in CSRF)."""
    provider.claims = {**provider.claims, "org": "b", "groups": ["trainers"]}
    back = there_and_back(browser)
    victim = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    assert victim.get(back).status_code == 403
    assert victim.get("/v1/me").status_code == 401
    for address in ("/login/oidc/callback", "/login/oidc/callback?code=x&state=y"):
        assert browser.get(address).status_code == 403
    assert browser.get("/login/oidc/callback?error=access_denied").status_code == 403


@pytest.mark.parametrize(
    "token",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"exp": 1},
        {"iss": "http://another.example"},
    ],
)
def test_a_token_that_is_not_for_us_is_refused(
    browser: TestClient, provider: Provider, token: dict[str, Any]
) -> None:
    provider.claims = {**provider.claims, "org": "b", "groups": ["bosses"]}
    provider.token = token
    answer = browser.get(there_and_back(browser))
    assert answer.status_code == 403
    assert browser.get("/v1/me").status_code == 401


def test_a_token_signed_by_another_is_refused(browser: TestClient, provider: Provider) -> None:
    provider.claims = {**provider.claims, "org": "b", "groups": ["bosses"]}
    provider.signing_key = RSAKey.generate_key(2048, {"kid": "one"})
    assert browser.get(there_and_back(browser)).status_code == 403
    assert browser.get("/v1/me").status_code == 401


def test_who_is_in_no_group_is_not_let_in(browser: TestClient, provider: Provider) -> None:
    provider.claims = {**provider.claims, "org": "b", "groups": ["others"]}
    answer = browser.get(there_and_back(browser))
    assert answer.status_code == 403
    assert "in no group" in answer.text


def test_a_provider_that_is_away_is_said(settings: Settings) -> None:
    from mlhf_service.main import create_app

    settings.oidc_issuer = "http://127.0.0.1:9"
    client = TestClient(create_app(settings), base_url="http://127.0.0.1", follow_redirects=False)
    answer = client.get("/login/oidc")
    assert answer.status_code == 403
    assert "does not answer" in answer.text


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_whichever_library_sends_the_requests(settings: Settings, library: str) -> None:
    sent_by = pytest.importorskip(library)
    provider = oidc.Provider(settings)

    async def away(*_: object) -> None:
        raise sent_by.ConnectError("All connection attempts failed")

    provider._client.authorize_redirect = away
    provider._client.authorize_access_token = away
    request = Request({"type": "http"})
    with pytest.raises(LoginFailed, match="does not answer"):
        asyncio.run(provider.send_there(request, "http://localhost/login/oidc/callback"))
    with pytest.raises(LoginFailed, match="ConnectError"):
        asyncio.run(provider.person(request))


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"org": "b", "groups": "staff"}, ("b", ["write"])),
        ({"org": ["b"], "groups": ["staff", "bosses"]}, ("b", ["admin", "write"])),
        ({"org": ["b", "c"], "groups": ["staff"]}, None),
        ({"org": "../x", "groups": ["staff"]}, None),
        ({"groups": ["staff"]}, None),
        ({"org": "b", "groups": {"staff": True}}, None),
        ({"org": "b"}, None),
    ],
)
def test_what_claims_stand_for(
    settings: Settings, claims: dict[str, Any], found: tuple[str, list[str]] | None
) -> None:
    claims = {"iss": "https://issuer", "sub": "1", **claims}
    if found is None:
        with pytest.raises(LoginFailed):
            person_of(claims, settings)
        return
    person = person_of(claims, settings)
    assert (person["tenant"], person["scopes"]) == found


def test_nested_claims_and_everybody(settings: Settings) -> None:
    settings.oidc_tenant_claim, settings.oidc_groups_claim = "", "realm_access.roles"
    claims = {"iss": "https://issuer", "sub": "1", "realm_access": {"roles": ["bosses"]}}
    assert person_of(claims, settings)["scopes"] == ["admin"]
    settings.oidc_read_groups = "*"
    person = person_of({"iss": "https://issuer", "sub": "1"}, settings)
    assert (person["tenant"], person["scopes"]) == ("local", ["read"])
    other = person_of({"iss": "https://issuer", "sub": "2"}, settings)
    assert person["id"] != other["id"]
