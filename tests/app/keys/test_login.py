"""Log-in to the pages: the cookie, where it leads, and what other sites cannot have it do."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlhf_service.keys.schemas import NewKey
from mlhf_service.settings import Settings
from tests.app.keys.conftest import MakeKey, forget

OWN = {"Origin": "http://127.0.0.1"}
PAGE = {"Accept": "text/html"}


@pytest.fixture
def browser(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(
        app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False
    ) as client:
        yield client


@pytest.fixture
def log_in(browser: TestClient) -> Callable[[NewKey], TestClient]:
    def enter(key: NewKey) -> TestClient:
        answer = browser.post("/login", data={"key": key.secret}, headers=OWN)
        assert answer.status_code == 303, answer.text
        return browser

    return enter


def test_a_page_leads_to_the_log_in_and_back(browser: TestClient, make_key: MakeKey) -> None:
    asked = browser.get("/compare?job=job_1&x=samples", headers=PAGE)
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    assert form.status_code == 200
    assert 'value="/compare?job=job_1&amp;x=samples"' in form.text
    back = "/compare?job=job_1&x=samples"
    entered = browser.post("/login", data={"key": make_key().secret, "next": back}, headers=OWN)
    assert (entered.status_code, entered.headers["location"]) == (303, back)
    assert browser.get("/", headers=PAGE).status_code == 200
    assert browser.get("/v1/jobs").status_code == 200


def test_the_cookie_is_not_for_scripts_and_holds_no_secret(
    browser: TestClient, make_key: MakeKey
) -> None:
    key = make_key()
    set_cookie = browser.post("/login", data={"key": key.secret}, headers=OWN).headers["set-cookie"]
    assert set_cookie.startswith("mlhf_session=")
    assert "httponly" in set_cookie
    assert "samesite=lax" in set_cookie
    assert "Max-Age=43200" in set_cookie
    assert key.secret.rpartition("_")[2] not in set_cookie


def test_by_https_the_cookie_is_bound_to_the_host(app: FastAPI, make_key: MakeKey) -> None:
    client = TestClient(app, base_url="https://mlhf.example", follow_redirects=False)
    origin = {"Origin": "https://mlhf.example"}
    answer = client.post("/login", data={"key": make_key().secret}, headers=origin)
    assert answer.headers["set-cookie"].startswith("__Host-mlhf_session=")
    assert "secure" in answer.headers["set-cookie"]
    assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("key", ["", "mlhf_x", "mlhf_aaaaaaaaaaaa_" + "A" * 43])
def test_a_wrong_key_is_said(browser: TestClient, key: str) -> None:
    answer = browser.post("/login", data={"key": key}, headers=OWN)
    assert answer.status_code == 401
    assert "not valid" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "next_",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil",
        "javascript:x",
        "/\tx",
        "http://[",
        "/a\nb",
        "",
    ],
)
def test_no_log_in_leads_to_another_site(
    browser: TestClient, make_key: MakeKey, next_: str
) -> None:
    data = {"key": make_key().secret, "next": next_}
    assert browser.post("/login", data=data, headers=OWN).headers["location"] == "/"
    assert browser.get("/login", params={"next": next_}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
def test_other_sites_change_nothing_by_the_cookie(
    log_in: Callable[[NewKey], TestClient], make_key: MakeKey, headers: dict[str, str]
) -> None:
    client = log_in(make_key("admin"))
    for method, path in (
        ("POST", "/v1/jobs"),
        ("POST", "/v1/keys"),
        ("POST", "/v1/jobs/job_1/cancel"),
        ("DELETE", "/v1/datasets/ds_1"),
        ("POST", "/logout"),
    ):
        answer = client.request(
            method, path, headers=headers, json={} if method == "POST" else None
        )
        assert answer.status_code == 403, path
    assert (
        client.post("/login", data={"key": make_key().secret}, headers=headers).status_code == 403
    )
    assert client.get("/v1/jobs").status_code == 200  # still logged in


def test_the_own_pages_change_things(
    log_in: Callable[[NewKey], TestClient], make_key: MakeKey
) -> None:
    client = log_in(make_key("admin"))
    for headers in (OWN, {"Sec-Fetch-Site": "same-origin"}):
        assert client.post("/v1/keys", json={"name": "x"}, headers=headers).status_code == 201


def test_who_is_behind_a_proxy_allows_its_origin(
    settings: Settings, log_in: Callable[[NewKey], TestClient], make_key: MakeKey
) -> None:
    client = log_in(make_key("admin"))
    there = {"Origin": "https://mlhf.example.org"}
    assert client.post("/v1/keys", json={"name": "x"}, headers=there).status_code == 403
    settings.allowed_origins = "https://mlhf.example.org, https://other.example"
    assert client.post("/v1/keys", json={"name": "x"}, headers=there).status_code == 201


def test_a_session_ends_with_its_key_and_by_logging_out(
    app: FastAPI,
    log_in: Callable[[NewKey], TestClient],
    as_: Callable[[NewKey], TestClient],
    make_key: MakeKey,
) -> None:
    key, admin = make_key(), make_key("admin")
    client = log_in(key)
    assert client.post("/logout", headers=OWN).status_code == 303
    assert client.get("/v1/jobs").status_code == 401
    log_in(key)
    as_(admin).delete(f"/v1/keys/{key.id}")
    forget(app)
    assert client.get("/v1/jobs").status_code == 401


def test_a_cookie_that_was_changed_is_none(
    log_in: Callable[[NewKey], TestClient], make_key: MakeKey
) -> None:
    client = log_in(make_key())
    value = client.cookies["mlhf_session"]
    client.cookies.clear()
    for forged in (value[:-2] + "xx", "x" + value[1:], value.partition(".")[0], "a.b.c", "\x7f"):
        assert client.get("/v1/jobs", cookies={"mlhf_session": forged}).status_code == 401


def test_a_key_in_the_header_goes_before_the_cookie(
    log_in: Callable[[NewKey], TestClient], make_key: MakeKey
) -> None:
    client = log_in(make_key("admin"))
    reader = make_key("read")
    header = {"Authorization": f"Bearer {reader.secret}"}
    assert client.post("/v1/jobs", json={}, headers=header).status_code == 403
    assert client.get("/v1/jobs", headers={"Authorization": "Bearer x"}).status_code == 401


def test_the_page_of_keys(log_in: Callable[[NewKey], TestClient], make_key: MakeKey) -> None:
    made = make_key("read", name="<script>alert(1)</script>")
    admin = make_key("admin", name="boss")
    client = log_in(admin)
    shown = client.get("/keys", headers=PAGE)
    assert shown.status_code == 200
    assert made.prefixes[0] in shown.text
    assert "<script>alert" not in shown.text
    assert made.secret not in shown.text
    assert 'href="/keys"' in client.get("/", headers=PAGE).text
    log_in(made)
    refused = client.get("/keys", headers=PAGE)
    assert refused.status_code == 403
    assert "needs the scope admin" in refused.text
    assert 'href="/keys"' not in client.get("/", headers=PAGE).text
