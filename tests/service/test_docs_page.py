"""Execute is pressed on every example of /docs in a real browser, as it stands."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlhf_service.client import Client
from tests.service.conftest import Serving, train
from tests.waiting import DEADLINE

# Some forty presses of a second each, and of twenty where others keep the cores busy.
pytestmark = [
    pytest.mark.services,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

JSON = "application/json"
FLOWERS = "length,species\n" + "".join(f"{i},{('tulip', 'rose')[i % 2]}\n" for i in range(40))


@pytest.fixture
def page(browser: Any) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(1000 * DEADLINE)
    return page


class Opened:
    """One operation on the page /docs."""

    def __init__(self, page: Any, name: str) -> None:
        self.block = page.locator(f".opblock[id$='-{name}']")
        self.block.locator(".opblock-summary-control").click()
        self.button = self.block.locator("button.execute")
        self.button.wait_for()

    def fill(self, parameter: str, value: str) -> None:
        row = self.block.locator(
            f"tr[data-param-name={parameter}], tr[data-property-name={parameter}]"
        )
        choice = row.locator("select")
        if choice.count():  # of the few that there are
            choice.select_option(value)
        else:
            row.locator("input, textarea").first.fill(value)

    def choose(self, example: str) -> None:
        choice = self.block.locator(".opblock-section-request-body .examples-select-element")
        if choice.count():  # there is more than one
            choice.first.select_option(example)

    def execute(self) -> str:
        """The status, and what was answered."""
        self.button.click()
        answer = self.block.locator(".live-responses-table .response").first
        answer.locator(".response-col_status").wait_for()
        text = str(answer.inner_text())
        self.block.locator("button.btn-clear").click()
        return text

    def close(self) -> None:
        self.block.locator(".opblock-summary-control").click()


@pytest.mark.long
def test_every_example_works_as_it_stands(serving: Serving, page: Any, tmp_path: Path) -> None:
    serving.start("serve", "--workers", "1")
    serving.wait_until_ready()
    client = serving.client
    ids = things(client)
    page.goto(f"{client.url}/docs")
    page.locator(".opblock").first.wait_for()
    wrong = []
    for methods in client.get("/openapi.json")["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            content = operation.get("requestBody", {}).get("content", {})
            needed = [p["name"] for p in operation.get("parameters", ()) if p.get("required")]
            if JSON not in content:
                continue
            opened = Opened(page, name)
            for parameter in needed:
                opened.fill(parameter, ids.get(f"{name} {parameter}") or ids[parameter])
            for example in content[JSON]["examples"]:
                opened.choose(example)
                answer = opened.execute()
                if not answer.startswith("2"):
                    wrong.append(f"{name} {example}: {answer}")
            opened.close()
    assert wrong == []
    uploads_a_file(page, client, tmp_path / "flowers.csv")


def uploads_a_file(page: Any, client: Client, table: Path) -> None:
    table.write_text(FLOWERS)
    opened = Opened(page, "upload_dataset")
    opened.block.get_by_role("combobox").filter(has_text="table").select_option("table")
    if not opened.block.locator("input[type=file]").count():
        opened.block.get_by_role("button", name="Add").click()
    opened.block.locator("input[type=file]").set_input_files(table)
    opened.fill("params", json.dumps({"target": "species"}))
    answer = opened.execute()
    assert answer.startswith("201"), answer
    names = [one["name"] for one in client.get("/v1/datasets")["data"]]
    assert "flowers" in names, "the name that the form proposes"


def things(client: Client) -> dict[str, str]:
    """What the examples are about: ids by the parameter, or by the operation and it."""

    def made(path: str, **body: Any) -> str:
        answer = httpx.post(f"{client.url}/v1/{path}", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    job = client.watch(client.submit(train(budget={"steps": 5})))
    logged = made("runs", optimizer="sgd")
    return {
        "job_id": job.id,
        "run_id": job.run_ids[0],
        "log_points run_id": logged,
        "finish_logged_run run_id": logged,
        "project_id": made("projects", name="to be renamed"),
        "key_id": made("keys", name="to be rotated"),
        "webhook_id": made("webhooks", url="https://example.org/"),
        "rule_id": made("retention", name="a rule", rule={"older_than_days": 365}, enabled=False),
        "optimizer": "mlhf",
        "alias": "default",
    }
