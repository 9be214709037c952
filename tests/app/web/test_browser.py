"""The pages in a real browser: choose, compare, watch a run grow."""

import re
from typing import Any

import pytest

from mlhf_service.database import Database, now
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.models import Job
from mlhf_service.runs.models import Run
from tests.app.conftest import Rows
from tests.app.web.conftest import Watched
from tests.waiting import DEADLINE

INK = """(canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let ink = 0;
  for (let at = 3; at < pixels.length; at += 4) if (pixels[at] > 0) ink++;
  return ink;
}"""


DROPPED = """(text) => {
  const dropped = new DataTransfer();
  dropped.items.add(new File([text], "flowers.csv", { type: "text/csv" }));
  return dropped;
}"""


def drawn(page: Any) -> None:
    """Wait until the page has shown what it knows by now."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def ink(page: Any, place: str) -> int:
    """How many pixels of a chart are drawn on."""
    page.wait_for_selector(f"{place} canvas")
    drawn(page)
    return int(page.eval_on_selector(f"{place} canvas", INK))


def two_runs(rows: Rows) -> list[str]:
    job = rows.job(name="two", kind="sweep")
    runs = []
    for place, (optimizer, last) in enumerate((("adam", 0.5), ("hf_adam", 0.125))):
        run = rows.run(job, position=place, name=f"two: {optimizer}", optimizer=optimizer)
        rows.points(run, "train_loss", {0: 2.0, 1: 1.0, 2: last})
        rows.points(run, "test_accuracy", {0: 0.1, 1: 0.5, 2: 0.75})
        runs.append(run)
    return runs


def change(database: Database, run_id: str, **fields: Any) -> None:
    with database.write() as session:
        run = session.get_one(Run, run_id)
        job = session.get_one(Job, run.job_id)
        for name, value in fields.items():
            setattr(run, name, value)
            if name == "status":
                job.status = value


def test_choose_two_runs_and_compare_them(watched: Watched, url: str, rows: Rows) -> None:
    runs = two_runs(rows)
    page = watched.page
    page.goto(url)
    compare = page.get_by_role("button", name="Compare", exact=False)
    assert compare.is_disabled()
    for run in runs:
        page.locator(f"#choose-{run}").focus()
        page.keyboard.press("Space")
    assert compare.inner_text() == "Compare (2)"
    compare.press("Enter")
    page.wait_for_url("**/compare?**")
    assert ink(page, "#by-samples") > 1000
    assert ink(page, "#by-seconds") > 1000
    page.get_by_label("Target").fill("0.5")
    page.keyboard.press("Enter")
    page.wait_for_url("**target=0.5**")
    table = page.locator("#table").inner_text()
    for shown in ("0.125", "4×", "75.0 %", "20", "1 s", "hf_adam"):
        assert shown in table
    legend = page.locator("#by-samples .u-legend").inner_text()
    assert "adam" in legend
    assert "low" not in legend
    assert watched.wrong == []
    assert watched.hosts == {url.removeprefix("http://")}


def test_the_list_is_live_and_keeps_what_was_chosen(
    watched: Watched, url: str, rows: Rows, database: Database
) -> None:
    job = rows.job(name="live", status="running", started_at=now())
    run = rows.run(job, name="live", status="running")
    page = watched.page
    page.goto(url)
    page.locator(f"#choose-{run}").press("Space")
    summary = {"train_loss": {"last": 0.4321, "best": 0.4321, "best_step": 3}}
    change(database, run, progress={"fraction": 0.5}, summary=summary)
    page.get_by_text("0.4321").wait_for()
    assert page.get_by_text("50 %").is_visible()
    assert page.locator(f"#choose-{run}").is_checked()
    assert page.evaluate("document.activeElement.id") == f"choose-{run}"
    assert watched.wrong == []


def test_a_run_draws_and_grows(watched: Watched, url: str, rows: Rows, database: Database) -> None:
    run = rows.run(rows.job(name="grows", status="running"), name="grows", status="running")
    page = watched.page
    page.goto(f"{url}/runs/{run}")
    page.get_by_text("Nothing measured yet.").wait_for()
    rows.points(run, "train_loss", {0: 2.0, 1: 1.0})
    page.wait_for_selector("#chart canvas")
    before = ink(page, "#chart")
    rows.points(run, "train_loss", {2: 0.2, 3: 0.1, 4: float("nan")})
    page.get_by_text("train loss is NaN from 40 samples on").wait_for()
    assert ink(page, "#chart") != before
    page.locator("#axis").select_option("wall_seconds")
    page.get_by_text("train loss is NaN from 2 s of training on").wait_for()
    error = {"title": "Diverged", "detail": "The loss is NaN.", "type": "x", "status": 422}
    change(database, run, status="failed", error=error)
    page.get_by_text("The loss is NaN.").wait_for()
    page.reload()
    page.wait_for_selector("#chart canvas")
    assert page.locator("#axis").input_value() == "wall_seconds", "the address holds it"
    assert watched.wrong == []


def test_a_job_is_logged_live_and_cancelled(
    watched: Watched, url: str, rows: Rows, database: Database
) -> None:
    job = rows.job(name="logged", status="queued")
    rows.run(job, name="logged", status="queued")
    with database.write() as session:
        add_event(session, job, "log", {"run_id": None, "level": "info", "message": "told before"})
    page = watched.page
    page.goto(f"{url}/jobs/{job}")
    with database.write() as session:
        add_event(session, job, "log", {"level": "warning", "message": "<b>told now</b>"})
    page.get_by_text("<b>told now</b>").wait_for()
    with database.write() as session:
        add_event(session, job, "log", {"level": "info", "message": "told last"})
    page.get_by_text("told last").wait_for()
    assert page.get_by_text("told before").count() == 1
    assert page.get_by_text("told now").count() == 1
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    page.locator("#state .cancelled").wait_for()
    assert page.get_by_role("button", name="Cancel").count() == 0
    assert watched.wrong == []


def test_the_first_job_is_one_click_away(watched: Watched, url: str, database: Database) -> None:
    page = watched.page
    page.goto(url)
    page.get_by_role("button", name="Start this job").click()
    page.wait_for_url("**/jobs/job_*")
    page.get_by_role("heading", name="first comparison on handwritten digits").wait_for()
    assert page.locator("tr.run").count() == 6
    assert watched.wrong == []


def test_what_cannot_be_done_is_said(watched: Watched, url: str, rows: Rows) -> None:
    job = rows.job(name="old", spec={"kind": "train"})
    rows.run(job, name="old")
    page = watched.page
    page.goto(f"{url}/jobs/{job}")
    page.get_by_role("link", name="Clone with changes").click()
    page.get_by_role("status").filter(has_text="Not valid").wait_for()
    assert page.get_by_role("button", name="Start").is_disabled()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows(browser: Any, url: str, rows: Rows, width: int, scheme: str) -> None:
    runs = two_runs(rows)
    job = rows.job(name="a" * 200)
    rows.run(job, name="a" * 200)
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    context.set_default_timeout(1000 * DEADLINE)
    watched = Watched(context.new_page())
    paths = ("/", f"/jobs/{job}", f"/runs/{runs[0]}", f"/compare?run={runs[0]}&run={runs[1]}")
    for path in paths:
        watched.page.goto(url + path)
        if path.startswith(("/runs", "/compare")):
            watched.page.wait_for_selector("canvas")
        drawn(watched.page)
        over = watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, path
    context.close()
    assert watched.wrong == []


def test_the_reference_asks_no_other_host(watched: Watched, url: str) -> None:
    page = watched.page
    page.goto(f"{url}/docs")
    page.get_by_text("/v1/jobs/{job_id}/cancel").first.wait_for()
    assert watched.hosts == {url.removeprefix("http://")}
    assert watched.wrong == []


def test_a_data_set_is_dropped_onto_its_page(watched: Watched, url: str) -> None:
    table = "a,y\n" + "".join(f"{i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    page = watched.page
    page.goto(f"{url}/datasets")
    assert page.get_by_label("Column to predict").is_hidden(), "of tables only"
    dropped = page.evaluate_handle(DROPPED, table)
    for event in ("dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": dropped})
    assert page.get_by_label("Name").input_value() == "flowers"
    page.wait_for_function("document.querySelectorAll('#columns option').length === 2")
    page.get_by_label("Column to predict").fill("y")
    page.get_by_role("button", name="Upload").click()
    page.get_by_text("What was understood").wait_for()
    assert "/datasets/ds_" in page.url
    page.get_by_role("link", name="Compare optimizers on it").click()
    page.locator("#verdict", has_text=re.compile("[Vv]alid")).wait_for()
    assert page.locator("#verdict").inner_text().startswith("Valid")
    assert '"name": "flowers"' in page.locator("#spec").input_value(), "not by its id"
    assert not watched.wrong


def test_a_run_that_diverged_is_drawn_to_where_it_did(
    watched: Watched, url: str, rows: Rows
) -> None:
    """Its evaluations are finite and end long before."""
    totals = {"steps": 9, "samples": 90, "epochs": 0.9, "wall_seconds": 4.5}
    error = {"type": "/problems/diverged", "title": "Diverged", "status": 422, "detail": "at 9"}
    run = rows.run(status="failed", error=error, totals=totals)
    rows.points(run, "train_loss", {0: 2.0, 1: 1.0})
    page = watched.page
    page.goto(f"{url}/runs/{run}")
    page.get_by_text("The run diverged at step 9 (×)").wait_for()
    assert ink(page, "#chart") > 1000
    line = {"points": [[0, 2.0], [10, 1.0]], "crosses": [[90, 1.0], [5, 2.0]]}
    code = "line => import('/static/chart.js').then(chart => chart.tables([line]))"
    tables = page.evaluate(code, line)
    assert tables == [[[0, 10, 90], [2.0, 1.0, None]]], "the axis reaches to the cross"
    page.goto(f"{url}/compare?run={run}&run={rows.run()}")
    page.get_by_text("×: the run diverged").wait_for()
    assert not watched.wrong


def test_a_closer_look_fetches_what_is_looked_at(watched: Watched, url: str, rows: Rows) -> None:
    run = rows.run(rows.job())
    rows.points(run, "train_loss", {step: 1 / (1 + step) for step in range(4000)})
    page = watched.page
    page.goto(f"{url}/runs/{run}")
    page.get_by_text("1,500 of 4,000 points").wait_for()
    over = page.locator(".u-over").bounding_box()
    with page.expect_response(lambda answer: "min_x=" in answer.url) as told:
        page.mouse.move(over["x"] + over["width"] * 0.5, over["y"] + 50)
        page.mouse.down()
        page.mouse.move(over["x"] + over["width"] * 0.6, over["y"] + 50, steps=4)
        page.mouse.up()
    (series,) = told.value.json()["series"]
    assert not series["downsampled"]
    places = [x for x, _ in series["points"]]
    assert 18_000 < places[0] < 20_500, "a little beyond the half of 40,000 samples"
    assert 23_500 < places[-1] < 25_000
    assert ink(page, "#chart") > 0
    with page.expect_response(lambda answer: "/curves?" in answer.url) as told:
        page.locator(".u-over").dblclick()
    assert "min_x" not in told.value.url
    page.get_by_text("1,500 of 4,000 points").wait_for()
    assert watched.wrong == []


def test_the_picture_of_a_job_is_drawn_again_at_its_end(
    watched: Watched, url: str, rows: Rows, database: Database
) -> None:
    job = rows.job(name="two", kind="sweep", status="running")
    runs = [rows.run(job, position=place, status="running", seed=place) for place in (0, 1)]
    page = watched.page
    page.goto(f"{url}/jobs/{job}")
    page.locator(".figure img").wait_for()
    with page.expect_request(lambda asked: asked.url.endswith("format=png&format=png")):
        for run in runs:
            change(database, run, status="succeeded")
    assert watched.wrong == []
