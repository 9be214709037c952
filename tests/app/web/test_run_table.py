"""The table of all runs, as a client without scripts gets it."""

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import Rows
from tests.app.web.test_pages import EVIL, text_of


def run_of(rows: Rows, job: str, lr: float, loss: float, **fields: object) -> str:
    return rows.run(
        job,
        config={"optimizer": {"name": "adam", "params": {"lr": lr, "eps": 1e-8}}},
        summary={"test_loss": {"last": loss, "best": loss / 2, "best_step": 3}},
        totals={"wall_seconds": 1.5, "steps": 3},
        **fields,
    )


@pytest.fixture
def three(rows: Rows) -> list[str]:
    job = rows.job(name="a sweep")
    return [
        run_of(rows, job, 0.001, 0.5, name="low", tags={"team": "vision"}),
        run_of(rows, job, 0.1, 0.25, name="high", position=1),
        run_of(rows, job, 1.0, 2.0, name="worst", position=2, status="failed"),
    ]


def shown(html: str) -> list[str]:
    return re.findall(r'name="run" value="(run_\w+)" id="choose', html)


def heads(html: str) -> list[str]:
    return re.findall(r'<th scope="col" aria-sort="\w+"[^>]*><a[^>]*>([^<]*)</a>', html)


def test_hyperparameters_that_differ_are_columns(client: TestClient, three: list[str]) -> None:
    page = client.get("/runs").text
    assert shown(page) == three[::-1], "the newest first"
    assert heads(page) == [
        *("status", "optimizer", "model", "dataset", "optimizer.lr"),
        *("train_loss", "test_loss.best", "test_accuracy", "seconds", "created_at"),
    ]
    assert "3 runs" in text_of(page)
    assert "0.125" in page


def test_filter_order_and_columns_are_the_address(client: TestClient, three: list[str]) -> None:
    asked = "filter=optimizer.lr+<+0.5&sort=test_loss.best&columns=tags.team&columns=optimizer.lr"
    page = client.get(f"/runs?{asked}").text
    assert shown(page) == [three[1], three[0]]
    assert heads(page) == ["tags.team", "optimizer.lr"]
    assert 'value="tags.team" checked' in page
    links = [unescape(one) for one in re.findall(r'<a href="(/runs\?[^"]*sort=[^"]*)">', page)]
    again = next(link for link in links if "sort=optimizer.lr" in link)
    assert shown(client.get(again).text) == three[:2], "the filter is kept"
    download = re.search(r'href="(/v1/runs\?[^"]*format=csv)"', page)
    assert download is not None
    lines = client.get(unescape(download[1])).text.splitlines()
    assert lines == ["tags.team,optimizer.lr", ",0.1", "vision,0.001"]
    for name in ("status=failed", "q=WORST", "filter=name+%3D+worst"):
        assert shown(client.get(f"/runs?{name}").text) == [three[2]]
    usual = client.get("/runs?columns=usual&columns=tags.team").text
    assert heads(usual)[-1] == "tags.team"
    assert len(heads(usual)) == 11


def test_what_is_wrong_with_a_filter_is_shown_where_it_is(
    client: TestClient, three: list[str]
) -> None:
    for asked, said in (
        ("filter=optimizer.lrr+<+1", "did you mean 'optimizer.lr'"),
        ("sort=nonsense", "unknown field 'nonsense'"),
        ("columns=nonsense", "unknown field"),
        ("project=nonsense", "unknown project"),
        ("cursor=nonsense", "cursor"),
    ):
        page = client.get(f"/runs?{asked}")
        assert page.status_code == 422
        assert said in unescape(page.text)
        assert 'id="rows"' in page.text
    assert client.get("/runs?filter=").status_code == 200
    assert "No run meets these conditions" in client.get("/runs?q=absent").text


def test_many_are_tagged_archived_and_deleted(client: TestClient, three: list[str]) -> None:
    def do(what: str, *runs: str, **more: str) -> str:
        data = {"do": what, "run": list(runs), "back": "q=&sort=name", **more}
        answer = client.post("/runs", data=data, follow_redirects=False)
        if answer.status_code == 303:
            assert answer.headers["location"] == "/runs?sort=name"
        return answer.text

    do("tag", *three[:2], tag="use:paper")
    for run in three[:2]:
        assert client.get(f"/v1/runs/{run}").json()["tags"]["use"] == "paper"
    do("untag", three[0], tag="use")
    assert client.get(f"/v1/runs/{three[0]}").json()["tags"] == {"team": "vision"}
    assert "is no tag" in do("tag", three[0], tag="not a key")
    assert "No run was chosen" in do("archive")
    do("move", three[0], project="a new one")
    for run in three:
        assert client.get(f"/v1/runs/{run}").json()["project"] == "a new one", "with its job"
    assert shown(client.get("/runs?project=a+new+one").text) == three[::-1]
    assert "is no name" in do("move", three[0], project=" ")
    do("archive", three[2])
    assert shown(client.get("/runs").text) == three[1::-1]
    assert shown(client.get("/runs?archived=true").text) == [three[2]]
    do("unarchive", three[2])
    asked = do("delete", *three[:2])
    assert "Delete 2 runs?" in asked
    assert len(shown(client.get("/runs").text)) == 3
    do("delete", *three[:2], sure="true")
    assert shown(client.get("/runs").text) == [three[2]]
    assert client.post("/runs", data={"do": "drop", "run": three[2]}).status_code == 422


def test_what_cannot_be_deleted_is_kept(client: TestClient, rows: Rows) -> None:
    running = rows.run(rows.job(status="running"), status="running")
    data = {"do": "delete", "run": running, "sure": "true"}
    page = client.post("/runs", data=data)
    assert "1 is kept" in text_of(page.text)
    assert shown(client.get("/runs").text) == [running]


def test_names_are_text_and_pages_follow(client: TestClient, rows: Rows) -> None:
    job = rows.job(name="many")
    for place in range(101):
        rows.run(job, name=f"{EVIL} {place}", position=place)
    page = client.get("/runs")
    assert EVIL not in page.text
    assert "101 runs, 100 shown" in text_of(page.text)
    following = re.search(r'href="(/runs\?cursor=[^"]*)"', page.text)
    assert following is not None
    rest = client.get(unescape(following[1])).text
    assert len(shown(rest)) == 1
    assert 'href="/runs?">First page' in rest
    assert len(shown(client.get("/runs?limit=1000").text)) == 101


def test_uploads_are_shown_by_their_names(client: TestClient, rows: Rows) -> None:
    run = rows.run(
        rows.job(name="on flowers"),
        dataset="ds_01",
        dataset_name="flowers",
        summary={
            "train_loss": {"last": 0.5, "best": 0.25, "best_step": 7},
            "damping": {"last": 3.5, "best": 2.5, "best_step": 9},
        },
    )
    for path in ("/", "/runs", f"/runs/{run}"):
        assert "flowers" in text_of(client.get(path).text).replace("on flowers", "", 1), path
        assert "ds_01 " not in text_of(client.get(path).text)
    shown_run = text_of(client.get(f"/runs/{run}").text)
    assert "0.25" in shown_run
    assert "2.5" not in shown_run.replace("2.50", ""), "no damping is the best"
