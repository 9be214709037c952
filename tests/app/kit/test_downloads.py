"""Files of runs over HTTP: validators, digests and ranges as RFC 9110 has them."""

import base64
import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlhf_service.kit.downloads import send_file
from mlhf_service.storage.folder import FolderStorage

hypothesis = pytest.importorskip("hypothesis")
HealthCheck, given, settings, st = (
    hypothesis.HealthCheck,
    hypothesis.given,
    hypothesis.settings,
    hypothesis.strategies,
)

CONTENT = bytes(range(256)) * 2000  # more than one chunk


@pytest.fixture
def run(rows: Any) -> str:
    return str(rows.run())


@pytest.fixture
def url(rows: Any, run: str) -> str:
    rows.artifact(run, "model.safetensors", CONTENT)
    return f"/v1/runs/{run}/artifacts/model.safetensors"


def test_list(client: TestClient, rows: Any, run: str) -> None:
    sha = rows.artifact(run, "checkpoint-000000120.safetensors", b"abc", kind="checkpoint", step=9)
    rows.artifact(run, "config.json", b"{}", kind="config", content_type="application/json")
    files = client.get(f"/v1/runs/{run}/artifacts").json()["data"]
    made = ("curves", "events")  # when they are asked for
    first, second = (file for file in files if file["kind"] not in made)
    assert first["sha256"] == sha == hashlib.sha256(b"abc").hexdigest()
    assert (first["kind"], first["step"], first["size"]) == ("checkpoint", 9, 3)
    assert second["content_type"] == "application/json"
    assert client.get(first["url"]).content == b"abc"


def test_whole_file(client: TestClient, url: str) -> None:
    response = client.get(url)
    digest = hashlib.sha256(CONTENT)
    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["etag"] == f'"{digest.hexdigest()}"'
    expected = base64.b64encode(digest.digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{expected}:"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert response.headers["x-content-type-options"] == "nosniff"


def test_head_tells_the_same_without_the_content(client: TestClient, url: str) -> None:
    response = client.head(url, headers={"Range": "bytes=0-9"})
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["etag"] == client.get(url).headers["etag"]


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-300099", 100, 300_100),
        ("bytes=511999-", 511_999, 512_000),
        ("bytes=-5", 511_995, 512_000),
        ("bytes=-999999999", 0, 512_000),
        ("bytes=10-99999999999", 10, 512_000),
        ("BYTES = 1-2", 1, 3),
    ],
)
def test_one_range(client: TestClient, url: str, header: str, start: int, end: int) -> None:
    response = client.get(url, headers={"Range": header})
    assert response.status_code == 206
    assert response.content == CONTENT[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/512000"
    assert response.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-1,4-5",
        "bytes=5-2",
        "bytes=-",
        "bytes=",
        "bytes",
        "lines=1-2",
        "bytes=a-b",
        "bytes=--5",
        "bytes=0-" + "9" * 5000,
        "bytes=" + "0-1," * 2000,
        "bytes=\u0661-\u0662",
    ],
)
def test_what_is_no_single_range_is_ignored(client: TestClient, url: str, header: str) -> None:
    response = client.get(url, headers={"Range": header.encode()})
    assert response.status_code == 200
    assert len(response.content) == len(CONTENT)


@pytest.mark.parametrize("header", ["bytes=512000-", "bytes=600000-700000", "bytes=-0"])
def test_a_range_beyond_the_end(client: TestClient, url: str, header: str) -> None:
    response = client.get(url, headers={"Range": header})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */512000"
    assert response.headers["content-type"] == "application/problem+json"


def test_conditions(client: TestClient, url: str) -> None:
    etag = client.get(url).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = client.get(url, headers={"If-None-Match": known, "Range": "bytes=0-1"})
        assert response.status_code == 304, known
        assert response.content == b""
        assert response.headers["etag"] == etag
    for condition, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200), ("", 200)):
        headers = {"If-Range": condition, "Range": "bytes=0-1"}
        assert client.get(url, headers=headers).status_code == status, condition


def test_a_lost_or_damaged_file_is_gone_not_an_error(
    client: TestClient, url: str, run: str, storage: FolderStorage
) -> None:
    path = storage.path(f"runs/{run}/model.safetensors")
    path.write_bytes(CONTENT[:-1])
    assert client.get(url).status_code == 410
    path.unlink()
    for method in ("GET", "HEAD"):
        assert client.request(method, url).status_code == 410


@pytest.mark.parametrize(
    "name", ["other", "..%2f..%2fmlhf.sqlite3", "%00", "a" * 201, "model.safetensors/", "", "é"]
)
def test_unknown_names(client: TestClient, url: str, run: str, name: str) -> None:
    assert client.get(f"/v1/runs/{run}/artifacts/{name}").status_code in (404, 422)


def test_an_empty_file(client: TestClient, rows: Any, run: str) -> None:
    rows.artifact(run, "empty", b"")
    url = f"/v1/runs/{run}/artifacts/empty"
    assert client.get(url).content == b""
    assert client.get(url, headers={"Range": "bytes=0-"}).status_code == 416


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """Serves, at ``/N``, a file of N bytes."""
    folder = tmp_path_factory.mktemp("sized")
    for size in range(31):
        (folder / str(size)).write_bytes(bytes(range(size)))

    def send(request: Request) -> Response:
        path = folder / request.path_params["size"]
        return send_file(request, path, sha256="00", name="n", content_type="a/b")

    return TestClient(Starlette(routes=[Route("/{size}", send)]))


@given(
    st.one_of(st.integers(0, 40).map(str), st.just("")),
    st.one_of(st.integers(0, 40).map(str), st.just("")),
    st.integers(0, 30),
)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_ranges_agree_with_slices(sized: TestClient, first: str, last: str, size: int) -> None:
    response = sized.get(f"/{size}", headers={"Range": f"bytes={first}-{last}"})
    content = bytes(range(size))
    if response.status_code == 416:
        assert (int(first) >= size) if first else (int(last) == 0 or size == 0)
        return
    if response.status_code == 200:
        assert (first, last) == ("", "") or (first and last and int(last) < int(first))
        assert response.content == content
        return
    if first:
        expected = content[int(first) : int(last) + 1 if last else None]
    else:
        expected = content[-int(last) :]
    assert response.status_code == 206
    assert response.content == expected
    start = int(first) if first else size - len(expected)
    content_range = f"bytes {start}-{start + len(expected) - 1}/{size}"
    assert response.headers["content-range"] == content_range
