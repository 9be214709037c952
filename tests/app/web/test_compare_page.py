"""What a comparison's page adds to its numbers: the best mean, LaTeX, hyperparameters."""

from json import loads
from typing import Any

from fastapi.testclient import TestClient

from tests.app.conftest import Rows
from tests.app.web.conftest import Watched


def sweep(rows: Rows) -> str:
    """Two learning rates and two seeds each. The best seed is not of the best mean."""
    job = rows.job(kind="sweep")
    losses = {0.1: (0.1, 0.9), 0.01: (0.3, 0.3)}
    place = 0
    for rate, of_seeds in losses.items():
        for seed, loss in enumerate(of_seeds):
            optimizer = {"name": "adam", "params": {"lr": rate}}
            config: dict[str, Any] = {"seed": seed, "optimizer": optimizer}
            run = rows.run(job, position=place, seed=seed, config=config)
            rows.points(run, "train_loss", {0: 1.0, 1: loss})
            place += 1
    return job


def test_the_best_mean_is_bold(client: TestClient, rows: Rows) -> None:
    html = client.get(f"/compare?job={sweep(rows)}").text
    groups = [row for row in html.split("<tr") if row.startswith(' class="group"')]
    assert len(groups) == 2
    assert "best" not in groups[0].split("</td>")[0]
    assert 'class="num best">0.3' in groups[1]


def test_as_latex(client: TestClient, rows: Rows) -> None:
    answer = client.get(f"/v1/comparisons?job={sweep(rows)}&format=latex")
    assert answer.headers["content-type"].startswith("application/x-latex")
    assert r"adam lr=0.01 & 2 & $\mathbf{0.3} \pm 0$ & -- \\" in answer.text
    assert r"\begin{tabular}{lrrr}" in answer.text


def test_charts_hyperparameters_and_hidden_lines(watched: Watched, url: str, rows: Rows) -> None:
    page = watched.page
    page.goto(f"{url}/compare?job={sweep(rows)}")
    page.wait_for_selector("#by-seconds canvas")
    assert page.locator("#by-parameters circle").count() == 4
    assert page.locator("#by-parameters .way").count() == 4
    data = loads(page.locator("#curves script").text_content() or "")
    assert data["parameters"]["names"] == ["optimizer.lr"]
    page.locator("#by-samples .u-legend .u-series").nth(1).locator("th").click()
    page.wait_for_selector("#by-seconds .u-series.u-off")
    page.get_by_label("log x").check()
    page.get_by_label("Smooth").fill("0.5")
    page.wait_for_selector("#by-seconds canvas")
    assert watched.wrong == []


def test_places_on_an_axis_are_told_apart(watched: Watched, url: str) -> None:
    watched.page.goto(f"{url}/")
    asked = "async (values) => values.map((await import('/static/chart.js')).place)"
    shown = watched.page.evaluate(asked, [None, 0, 0.003, 0.16, 5, 1438, 2.5e6])
    assert shown == ["", "0", "0.003", "0.16", "5", "1.44K", "2.5M"]
