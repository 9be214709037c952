"""What nobody means well with: it is refused with a 4xx, on both databases, and never a 500."""

import base64
import itertools
import json

import pytest
from fastapi.testclient import TestClient

PROBLEM = "application/problem+json"


def cursor(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "origin",
    [
        "http://[",
        "http://[::1",
        "http://[foo]bar",
        "http://]",
        "http://[::1]:x",
        "http://127.0.0.1@evil.example",
        "http://evil.example@127.0.0.1",
        "https://127.0.0.1:99999999999",
        "null",
        "file://",
        "javascript:alert(1)",
        "//127.0.0.1",
        "127.0.0.1",
        " ",
        "http://\u00e9".encode("latin-1"),
        "http://127.0.0.1, http://127.0.0.1",
        "http://127.0.0.1\\@evil.example",
        "http://" + "a" * 60_000,
    ],
)
def test_origins(client: TestClient, origin: str | bytes) -> None:
    for path in ("/v1/jobs", "/", "/static/style.css"):
        answer = client.get(path, headers={"Origin": origin})
        assert answer.status_code == 403
        assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    "host",
    [
        "evil.com@127.0.0.1",
        "127.0.0.1:99999",
        "127.0.0.1:65536",
        "127.0.0.1:abc",
        "127.0.0.1:",
        "127.0.0.1:-1",
        "127.0.0.1:80:80",
        "127.0.0.1/x",
        "127.0.0.1?x",
        "127.0.0.1#x",
        "127.0.0.1 ",
        "127.0.0.1.",
        "[::1",
        "::1]",
        "[::1]x",
        "[127.0.0.1",
        "localhost\\",
        "\u0661\u0662\u0667.0.0.1".encode(),
        "0x7f.1",
        "",
    ],
)
def test_hosts(client: TestClient, host: str | bytes) -> None:
    answer = client.get("/v1/jobs", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == PROBLEM


VALUES: list[object] = ["\ud800", "\0", 1, None, {}, [], "x" * 200, "' or 1=1 --", "\uffff"]
LISTS = ["/v1/jobs", "/v1/runs", "/v1/datasets", "/v1/meta-checkpoints", "/v1/keys"]
SORTS = {"/v1/jobs": ["name"], "/v1/runs": ["-status"]}


@pytest.mark.parametrize("path", LISTS)
def test_cursors(client: TestClient, path: str) -> None:
    """Any cursor is an empty page or a bad request."""
    made = [cursor([v]) for v in VALUES]
    made += [cursor([a, b]) for a, b in itertools.pairwise(VALUES)]
    made += [
        "!",
        "====",
        "a",
        "W10",
        "\ud800",
        "\u00e9",
        "%00",
        "[]",
        "A" * 501,
        cursor(["x"] * 40),
    ]
    deep = base64.urlsafe_b64encode(b"[" * 300).decode()
    for sort in ["", *SORTS.get(path, [])]:
        for one in [*made, deep]:
            text = one.encode("utf-8", "surrogatepass") if one == "\ud800" else one
            params = {"cursor": text, **({"sort": sort} if sort else {})}
            answer = client.get(path, params=params)
            assert answer.status_code in (200, 400, 422), (path, one, answer.status_code)
            if answer.status_code != 200:
                assert answer.headers["content-type"] == PROBLEM


def test_the_cursors_of_the_report(client: TestClient) -> None:
    assert client.get("/v1/jobs?cursor=WyJcdWQ4MDAiXQ==").status_code == 400
    address = "/v1/runs?sort=name&cursor=WyJcdWQ4MDAiLCJ4Il0="
    assert client.get(address).status_code == 400


QUERIES = [
    "q=%00",
    "q=%ff",
    "q=%ed%a0%80",
    "q=%25",
    "q=_",
    "q=%5C",
    "q='",
    "q=" + "a" * 201,
    "q=%E2%80%AE",
    "tag=%00",
    "tag=:",
    "tag=%ed%a0%80:x",
    "optimizer=%00",
    "optimizer=%ed%a0%80",
    "model=%0d%0aX-Evil:1",
    "status=nothing",
    "kind=%00",
    "limit=0",
    "limit=-1",
    "limit=1e9",
    "limit=9999999999999999999999",
    "limit=NaN",
    "sort=__class__",
    "job_id=%00",
    "job_id=../..",
    "&&&===",
    "%",
    "=x",
]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/runs", "/v1/datasets", "/"])
def test_queries(client: TestClient, path: str) -> None:
    for query in QUERIES:
        answer = client.get(f"{path}?{query}")
        assert answer.status_code < 500, (path, query)


PATHS = [
    "%00",
    "%ff",
    "%ed%a0%80",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "job_%00",
    "job_" + "a" * 500,
    "%0d%0a",
    "{job_id}",
]


@pytest.mark.parametrize(
    "before", ["/v1/jobs/", "/v1/runs/", "/v1/datasets/", "/v1/meta-checkpoints/", "/v1/keys/",
               "/jobs/", "/runs/", "/datasets/", "/static/", "/v1/"],
)  # fmt: skip
def test_paths(client: TestClient, before: str) -> None:
    for path in PATHS:
        for method in ("GET", "DELETE"):
            answer = client.request(method, before + path)
            assert 400 <= answer.status_code < 500, (before, path)


NAMES = [
    "\u202egnp.exe",
    "a\u2066b\u2069",
    "a\u0085b",
    "a\u2028b",
    "a\u2029b",
    "\u200f",
    "\u061ca",
    "a\x9bb",
    "a\nb",
    "a\0b",
    "\x7f",
    "",
    "a" * 201,
]


@pytest.mark.parametrize("name", NAMES)
def test_names(client: TestClient, name: str) -> None:
    spec = {
        "kind": "train",
        "model": {"name": "mlp"},
        "dataset": {"name": "digits"},
        "optimizer": {"name": "adam"},
        "budget": {"epochs": 1},
    }
    check = "/v1/jobs?validate_only=true"
    assert client.post(check, json={**spec, "name": name}).status_code == 422
    if name:
        assert client.post(check, json={**spec, "tags": {"a": name + "x" * 56}}).status_code == 422
    upload = {"name": name, "format": "text"}
    answer = client.post("/v1/datasets", data=upload, files={"file": ("x", b"text")})
    assert answer.status_code == 422


def test_a_name_that_is_half_a_surrogate_pair(client: TestClient) -> None:
    body = b'{"kind":"train","name":"\\ud800"}'
    headers = {"Content-Type": "application/json"}
    assert client.post("/v1/jobs", content=body, headers=headers).status_code == 422


@pytest.mark.parametrize("name", ["Ünïcode", "名前", "שלום", "👩‍🔬 lab", "a b", "naïve (1)"])
def test_names_of_every_script_are_fine(client: TestClient, name: str) -> None:
    answer = client.post(
        "/v1/datasets",
        data={"name": name, "format": "table", "params": '{"target": "y"}'},
        files={"file": ("x.csv", b"x,y\n" + b"1,2\n3,4\n" * 20)},
    )
    assert answer.status_code == 201
    assert answer.json()["name"] == name
