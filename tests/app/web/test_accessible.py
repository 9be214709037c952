"""Every page, light and dark, wide and narrow: axe-core finds nothing serious in it."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import Rows
from tests.app.web.conftest import Watched
from tests.waiting import DEADLINE, until

axe_playwright = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python")

AXE = (Path(axe_playwright.__file__).parent / "axe.min.js").read_text()
LOOK = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes[0].html} (${nodes.length})`);
}"""


def every_page(client: TestClient, rows: Rows) -> list[str]:
    """The address of each page, with something on it."""
    job = rows.job(name="two", kind="sweep", tags=[])
    runs = []
    for place, optimizer in enumerate(("adam", "hf_adam")):
        measured = {
            "summary": {"train_loss": {"last": 0.5, "best": 0.5, "best_step": 1}},
            "environment": {"device": "cpu", "threads": 1},
            "totals": {"steps": 2, "samples": 20, "epochs": 0.2, "wall_seconds": 61.0},
        }
        run = rows.run(
            job, position=place, name="two: " + "n" * 80, optimizer=optimizer, **measured
        )
        rows.points(run, "train_loss", {0: 2.0, 1: 1.0, 2: 0.5})
        rows.artifact(run, "model.safetensors", b"x" * 2048)
        runs.append(run)
    content = "a,colour,y\n" + "".join(f"{i},red,{'yes' if i % 2 else 'no'}\n" for i in range(20))
    data = {"name": "flowers" * 20, "format": "table", "params": '{"target": "y"}'}
    upload = client.post("/v1/datasets", data=data, files={"file": ("t.csv", content)}).json()
    rows.run(rows.job(name="on flowers"), name="on flowers", dataset=upload["id"])
    return [
        "/",
        "/runs",
        f"/jobs/{job}",
        f"/runs/{runs[0]}",
        f"/compare?run={runs[0]}&run={runs[1]}",
        "/new",
        "/datasets",
        f"/datasets/{upload['id']}",
        "/models",
        "/models/sequential",
        "/optimizers",
        "/optimizers/mlhf",
        "/meta-checkpoints",
        "/meta-checkpoints/mc_shipped_mlhf",
        "/workers",
        f"/delete/{job}",
        "/docs",
    ]


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_accessible(
    browser: Any, url: str, client: TestClient, rows: Rows, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(1000 * DEADLINE)
    watched = Watched(context.new_page())
    page = watched.page
    for path in every_page(client, rows):
        page.goto(url + path)
        ready = None if path == "/runs" else READY.get(path.partition("?")[0].split("/")[1])
        if ready:
            page.wait_for_selector(ready)
        page.evaluate(f"{AXE};0")
        assert page.evaluate(LOOK) == [], path
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, path
    context.close()
    assert watched.wrong == []


# What a page shows last.
READY = {"runs": "#chart canvas", "compare": "#by-seconds canvas", "docs": ".opblock"}


def test_light_or_dark_is_remembered(watched: Watched, url: str) -> None:
    page = watched.page

    def theme() -> str:
        return str(page.evaluate("document.documentElement.dataset.theme"))

    page.emulate_media(color_scheme="light")
    page.goto(url)
    assert theme() == "light"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark").click()
    assert theme() == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    page.goto(f"{url}/docs")
    assert theme() == "dark"
    page.get_by_role("button", name="Dark").click()
    page.emulate_media(color_scheme="dark")
    page.goto(url)
    assert theme() == "light", "what was chosen holds against the system"
    until(lambda: page.evaluate("localStorage.getItem('theme')") == "light", "it is not stored")
    assert watched.wrong == []
