"""Pages as a client without scripts gets them."""

import re
from datetime import timedelta
from html import unescape
from json import dumps, loads
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database, now
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.models import JobEvent, JobTag
from mlhf_service.web import formats
from tests.app.conftest import Rows

WEB = Path(formats.__file__).parent
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
RUNNING: dict[str, Any] = {
    "status": "running",
    "progress": {"step": 5, "total_steps": 20, "epoch": 0.5, "samples": 50, "fraction": 0.25},
    "summary": {
        "train_loss": {"last": 0.3333333, "best": 0.3, "best_step": 4},
        "test_accuracy": {"last": 0.5, "best": 0.5, "best_step": 5},
    },
}


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_what_pages_load_is_there() -> None:
    asked = {
        name
        for path in (*WEB.glob("templates/*.html"), *WEB.glob("static/*.js"))
        for found in re.findall(
            r"(?:src|href)=\"/static/([^\"]+)\"|from \"\./([^\"]+)\"", path.read_text()
        )
        for name in found
        if name
    }
    assert len(asked) > 10
    assert not [name for name in asked if not (WEB / "static" / name).is_file()]


def test_an_empty_list_offers_a_first_job(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "curl -s http://127.0.0.1/v1/jobs" in page.text
    body = re.search(r'data-body="([^"]*)"', page.text)
    assert body is not None
    checked = client.post("/v1/jobs?validate_only=true", json=loads(unescape(body[1])))
    assert checked.status_code == 200
    assert checked.json()["runs"] == 6


def test_the_list_shows_jobs_and_runs(client: TestClient, rows: Rows) -> None:
    old = rows.job(name="an old job", created_at=now() - timedelta(days=3))
    rows.run(old, name="an old job", optimizer="sgd")
    job = rows.job(name="a sweep", kind="sweep", status="running", started_at=now())
    first = rows.run(job, name="a sweep: adam seed 0", **RUNNING)
    rows.run(job, name="a sweep: hf seed 1", position=1, optimizer="hf", status="queued")
    page = client.get("/")
    text = text_of(page.text)
    for shown in ("an old job", "a sweep", "adam seed 0", "25 %", "0.3333", "50.0 %", "2 runs"):
        assert shown in text
    assert page.text.index("a sweep") < page.text.index("an old job")
    assert f'name="run" value="{first}"' in page.text
    assert 'data-active="true"' in page.text


@pytest.mark.parametrize(
    ("query", "shown", "hidden"),
    [
        ("status=failed", "broken", "fine"),
        ("optimizer=hf", "fine", "broken"),
        ("q=FIN", "fine", "broken"),
        ("status=&optimizer=&q=", "fine", None),
    ],
)
def test_the_list_is_filtered(
    client: TestClient, rows: Rows, query: str, shown: str, hidden: str | None
) -> None:
    rows.run(rows.job(name="fine job"), name="fine job", optimizer="hf")
    rows.run(rows.job(name="broken job", status="failed"), name="broken job", status="failed")
    html = client.get(f"/?{query}").text
    assert f"{shown} job" in html
    assert hidden is None or f"{hidden} job" not in html


def test_nothing_found_says_so(client: TestClient, rows: Rows) -> None:
    rows.run(rows.job())
    assert "No job meets these conditions" in client.get("/?q=zebra").text


def test_a_long_list_has_pages_and_a_large_sweep_is_cut(client: TestClient, rows: Rows) -> None:
    for number in range(21):
        rows.run(rows.job(name=f"job {number:02d}"), name=f"job {number:02d}")
    first = client.get("/").text
    assert "job 20" in first
    assert "job 00" not in first
    older = re.search(r'href="(/\?cursor=[^"]+)"', first)
    assert older is not None
    assert "job 00" in client.get(older[1]).text
    sweep = rows.job(kind="sweep", name="large")
    for place in range(15):
        rows.run(sweep, position=place, name=f"large: {place}")
    assert "3 more runs" in client.get("/").text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "queued"}, {"pause", "cancel"}),
        ({"status": "running", "desired": "pause"}, {"resume", "cancel"}),
        ({"status": "running", "desired": "cancel"}, set()),
        ({"status": "paused"}, {"resume", "cancel"}),
        ({"status": "failed"}, {"retry"}),
        ({"status": "succeeded"}, set()),
    ],
)
def test_a_job_offers_what_can_be_done(
    client: TestClient, rows: Rows, fields: dict[str, str], expected: set[str]
) -> None:
    job = rows.job(**fields)
    rows.run(job, status=fields["status"])
    html = client.get(f"/jobs/{job}").text
    assert set(re.findall(rf'data-post="/v1/jobs/{job}/(\w+)"', html)) == expected


def test_a_failed_job_says_why_in_words(client: TestClient, rows: Rows) -> None:
    error = {"type": "/problems/data", "title": "Bad data", "status": 422, "detail": "row 3 <b>"}
    job = rows.job(status="failed", error=error)
    rows.run(job, status="failed", error=error)
    html = client.get(f"/jobs/{job}").text
    assert "Bad data" in html
    assert "row 3 &lt;b&gt;" in html


def test_a_run_s_timeline_tells_an_error_once(
    client: TestClient, rows: Rows, database: Database
) -> None:
    error = {"type": "/problems/data", "title": "Bad data", "status": 422, "detail": "row 3 <b>"}
    job = rows.job(status="failed", error=error)
    run = rows.run(job, status="failed", error=error, finished_at=now())

    def timeline() -> str:
        page = client.get(f"/runs/{run}").text
        return page[page.index('id="timeline"') : page.index("Times in UTC")]

    assert "failed: Bad data row 3 &lt;b&gt;" in timeline()
    with database.write() as session:
        told = {"run_id": run, "level": "error", "message": "row 3 <b>"}
        add_event(session, job, "log", told)
    assert timeline().count("row 3 &lt;b&gt;") == 1
    assert "failed: Bad data" in timeline()


def test_a_run_shows_everything(client: TestClient, rows: Rows) -> None:
    run = rows.run(
        config={"target": {"metric": "train_loss", "value": 0.5}},
        environment={"device": "cpu", "parameters": 12345, "data_digest": "ab" * 32},
        totals={"steps": 2, "samples": 20, "epochs": 0.2, "wall_seconds": 61.0},
        summary={"train_loss": {"last": "NaN", "best": 0.4, "best_step": 1}},
    )
    rows.points(run, "train_loss", {0: 2.0, 1: 0.4, 2: float("nan")})
    digest = rows.artifact(run, "model.safetensors", b"x" * 2048)
    text = text_of(page := client.get(f"/runs/{run}").text)
    for shown in ("reached after 10 samples", "12,345", "NaN", "1 min 01 s", "2.0 KiB", digest):
        assert shown in text
    assert f'href="/v1/runs/{run}/artifacts/model.safetensors"' in page
    for form in ("csv", "parquet"):
        assert client.get(f"/v1/runs/{run}/curves?format={form}").status_code == 200
        assert f"/v1/runs/{run}/curves?format={form}" in page


def test_a_comparison_shows_its_numbers(client: TestClient, rows: Rows) -> None:
    runs = [rows.run(optimizer=name) for name in ("adam", "hf")]
    rows.points(runs[0], "train_loss", {0: 2.0, 4: 0.5})
    rows.points(runs[1], "train_loss", {0: 2.0, 2: 0.25})
    address = f"/compare?run={runs[0]}&run={runs[1]}"
    text = text_of(html := client.get(f"{address}&target=0.5&metric=").text)
    for shown in ("0.5 2×", "0.25 1×", "40 2×", "20 1×", "2 s", "1 s", "single seed"):
        assert shown in text
    assert 'value="0.5"' in html
    for link in re.findall(r'href="(/v1/comparisons\?[^"]+)"', html):
        assert client.get(link.replace("&amp;", "&")).status_code == 200
    missed = text_of(client.get(f"{address}&target=0.3").text)
    assert "missed missed missed missed" in missed
    for shown in ("Final train loss", "Best train loss", "Final test accuracy"):
        assert shown in text
    by_test = text_of(client.get(f"{address}&metric=test_accuracy").text)
    assert "Final test loss" in by_test
    assert "CPU time of training (s)</h2>" in client.get(f"{address}&x=cpu_seconds").text


def test_a_run_that_goes_on_has_not_missed_its_target(client: TestClient, rows: Rows) -> None:
    job = rows.job(kind="sweep", status="running")
    states = ["succeeded", "running", "cancelled"]
    for seed, status in enumerate(states):
        run = rows.run(job, position=seed, status=status, config={"seed": seed})
        rows.points(run, "train_loss", {0: 1.0, 1: 0.05 if status == "succeeded" else 0.5}, cpu=2.0)
    text = text_of(client.get(f"/compare?job={job}&target=0.1").text)
    assert "10 1 of 3 so far" in text
    assert "not yet not yet not yet not yet" in text
    assert "unfinished unfinished unfinished unfinished" in text
    assert "missed" not in text


def test_repeats_of_a_seed_are_told_from_seeds(client: TestClient, rows: Rows) -> None:
    job = rows.job(kind="sweep")
    for position, seed in enumerate((0, 0, 1)):
        run = rows.run(job, position=position, config={"seed": seed})
        rows.points(run, "train_loss", {0: 1.0, 1: 0.5})
    text = text_of(client.get(f"/compare?job={job}").text)
    assert "mean of 2 seeds, 3 runs" in text
    assert "averaged first" in text


def test_a_run_that_diverged_is_shown_as_one(client: TestClient, rows: Rows) -> None:
    error = {
        "type": "/problems/diverged",
        "title": "Diverged",
        "status": 422,
        "detail": "at step 3",
    }
    job = rows.job(kind="sweep", status="failed", error=error)
    totals = {"steps": 3, "samples": 30, "epochs": 0.3, "wall_seconds": 1.5}
    summary = {"train_loss": {"last": 0.5, "best": 0.5, "best_step": 1}}
    progress = {"step": 3, "total_steps": 10, "samples": 30, "epoch": 0.3, "fraction": 0.3}
    for seed in range(2):
        fields = {"status": "failed", "error": error, "totals": totals} if seed else {}
        run = rows.run(
            job, position=seed, config={"seed": seed}, summary=summary, progress=progress, **fields
        )
        rows.points(run, "train_loss", {0: 1.0, 1: 0.5})
    html = client.get(f"/jobs/{job}").text
    assert "diverged at step 3" in text_of(html)
    assert "NaN" in text_of(html), "0.5 is not what it ended with"
    assert "65 %" in text_of(html), "one run is done, the other came to 30 %"
    page = client.get(f"/runs/{run}").text
    assert "&#34;step&#34;: 3" in page
    assert "CPU time of training not counted" in text_of(page)
    compared = text_of(client.get(f"/compare?job={job}").text)
    assert "diverged at step 3" in compared


def test_seeds_of_one_configuration_are_one_group(client: TestClient, rows: Rows) -> None:
    job = rows.job(kind="sweep")
    for seed, loss in ((0, 0.2), (1, 0.4)):
        run = rows.run(job, position=seed, seed=seed, config={"seed": seed})
        rows.points(run, "train_loss", {0: 1.0, 1: loss})
    text = text_of(client.get(f"/compare?job={job}&target=").text)
    assert "mean of 2 seeds" in text
    assert "0.3 ± 0.14" in text


def _upload(client: TestClient, content: str, **params: Any) -> str:
    data = {"name": EVIL[:50], "format": "table", "params": dumps({"target": "y", **params})}
    response = client.post("/v1/datasets", data=data, files={"file": ("t.csv", content)})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def test_a_data_set_shows_what_was_understood(client: TestClient) -> None:
    rows = "".join(f"{i},{'x' if i % 3 else '<b>'},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    ident = _upload(client, "a,colour,y\n" + rows + "?,x,no\n", missing="drop")
    html = client.get(f"/datasets/{ident}").text
    text = text_of(html)
    for shown in ("table of", "classification", "The labels are in y", "1 rows were dropped"):
        assert shown in text
    for shown in ("Columns", "colour", "category", "Splits", "held out", "Classes", "yes"):
        assert shown in text
    assert "First samples" in text
    assert "<b>" not in html
    assert EVIL[:50] not in html
    listed = client.get("/datasets").text
    assert f'href="/datasets/{ident}"' in listed
    assert EVIL[:50] not in listed
    assert "digits" in text_of(listed)
    assert client.get("/datasets/digits").status_code == 200
    assert client.get("/datasets/ds_none").status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/runs/run_none", 404, "no run"),
        ("/runs/<script>", 404, "no run"),
        ("/jobs/job_none", 404, "no job"),
        ("/jobs/%00", 404, "no job"),
        ("/compare", 422, "at least two runs"),
        ("/compare?run=run_1&run=run_2", 404, "There is no run run_1"),
        ("/compare?job=<script>alert(1)</script>", 404, "no job"),
        ("/compare?" + "&".join(f"run=run_{i}" for i in range(101)), 422, "At most 100"),
        ("/compare?run=run_1&run=run_2&metric=nonsense", 422, "metric"),
        ("/?status=nonsense", 422, "status"),
        ("/?cursor=nonsense", 400, "cursor"),
        ("/?q=%00", 422, "q"),
    ],
)
def test_errors_of_pages_are_pages(client: TestClient, path: str, status: int, says: str) -> None:
    page = client.get(path)
    assert page.status_code == status
    assert page.headers["content-type"].startswith("text/html")
    assert says in text_of(page.text)
    assert "<script>" not in page.text


def test_a_target_must_be_a_number(client: TestClient, rows: Rows) -> None:
    address = "/compare?" + "&".join(f"run={rows.run()}" for _ in range(2))
    for wrong in ("abc", "nan", "1e999"):
        assert client.get(f"{address}&target={wrong}").status_code == 400
    assert client.get(f"{address}&target=%20").status_code == 200


def test_the_api_keeps_its_problem_documents(client: TestClient) -> None:
    answer = client.get("/v1/jobs/job_none", headers={"Accept": "text/html"})
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_users_name_is_escaped(client: TestClient, rows: Rows) -> None:
    error = {"type": "x", "title": EVIL, "status": 500, "detail": EVIL}
    spec = {"name": EVIL, "tags": {"link": "javascript:alert(1)"}}
    job = rows.job(name=EVIL, kind="sweep", status="failed", error=error, spec=spec, event_seq=1)
    with rows.database.write() as session:
        session.add(JobTag(job_id=job, key="link", value="javascript:alert(1)"))
        session.add(JobTag(job_id=job, key="evil", value=EVIL))
        data = {"level": EVIL, "message": EVIL}
        session.add(JobEvent(job_id=job, seq=1, type="log", data=data, at=now()))
    runs = [
        rows.run(
            job,
            position=place,
            name=EVIL,
            error=error,
            environment={"device_name": EVIL},
            config={"model": {"name": EVIL, "params": {}}, "dataset": {"name": EVIL, "params": {}}},
            summary={EVIL: {"last": 0.5, "best": None, "best_step": None}},
            data_info={"input_shape": [EVIL]},
        )
        for place in range(2)
    ]
    rows.artifact(runs[0], EVIL.replace("/", "_"), b"x")
    for path in ("/", f"/jobs/{job}", f"/runs/{runs[0]}", f"/compare?job={job}", f"/?q={EVIL}"):
        page = client.get(path)
        assert page.status_code == 200, path
        assert "<script>alert" not in page.text, path
        assert "<img src=x" not in page.text, path
        assert "&lt;script&gt;" in page.text or path.startswith("/compare"), path
        assert not re.search(r'(href|src|action)="\s*javascript:', page.text), path
        assert not re.search(r"""["']\s*onerror=""", page.text), path


@pytest.mark.parametrize("path", sorted((WEB / "templates").glob("*.html")), ids=lambda p: p.name)
def test_templates_need_no_inline_script_or_style(path: Path) -> None:
    html = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|\|safe", html)
    for tag in re.findall(r"<script[^>]*>", html):
        assert (
            "src=" in tag or tag == '<script type="application/json">'
        )  # data, which nothing runs
    assert not re.search(r"https?://", html)


def test_pages_are_served_under_a_strict_policy(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy


def test_static_files_are_asked_for_again(client: TestClient) -> None:
    for path in (WEB / "static").rglob("*"):
        if path.is_file():
            answer = client.get(f"/static/{path.relative_to(WEB / 'static')}")
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "no-cache"
    assert client.get("/static/../endpoints.py").status_code == 404
    assert client.get("/static/%2e%2e/endpoints.py").status_code == 404


def test_pages_are_no_part_of_the_api(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert not {"/", "/jobs/{job_id}", "/runs/{run_id}", "/compare"} & set(paths)
    assert client.get("/jobs", follow_redirects=False).headers["location"] == "/"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0521, "0.0521 s"), (9.0, "9 s"), (125.4, "2 min 05 s"), (3600, "1 h 00 min"), (None, "–")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert formats.size(size) == text


def test_a_compared_number_is_escaped_and_bold_where_it_is_the_best() -> None:
    assert formats.compared_cell("<b>", None) == '<td class="num">&lt;b&gt;</td>'
    best, other = formats.compared_cell("0.1", 1.00001), formats.compared_cell("0.2", 2.0)
    assert best == '<td class="num best">0.1 <small>1×</small></td>'
    assert other == '<td class="num">0.2 <small>2×</small></td>'


def test_an_unknown_address_is_a_page_to_a_browser_and_a_problem_to_a_program(
    client: TestClient,
) -> None:
    page = client.get("/nowhere", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 404
    assert "There is no page of this address" in text_of(page.text)
    for path, accept in (("/nowhere", "*/*"), ("/v1/nowhere", "text/html")):
        answer = client.get(path, headers={"Accept": accept})
        assert answer.status_code == 404
        assert answer.json()["type"] == "/problems/not-found"


def test_what_a_queued_job_waits_for_is_said(client: TestClient, rows: Rows) -> None:
    job = rows.job(status="queued", queue="cpu")
    rows.run(job, status="queued")
    assert "No worker of the queue cpu is there" in client.get(f"/jobs/{job}").text
    assert "No worker is there" in client.get("/").text
