"""A new user's and a team's way through the pages, on real runs, on a desktop and a phone.

``MLHF_SCREENSHOTS=docs/pages`` keeps the pictures that docs/pages.md shows.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Serving
from tests.waiting import DEADLINE

pytestmark = [pytest.mark.services, pytest.mark.browser]

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
FLOWERS = "\n".join(
    ["length,width,colour,species"]
    + [
        f"{4 + i % 7 / 3:.2f},{1 + i % 5 / 4:.2f},{('red', 'blue')[i % 2]},"
        f"{('tulip', 'rose', 'iris')[(i % 7 > 3) + (i % 5 > 2)]}"
        for i in range(210)
    ]
)


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "MLHF_AUTH": "keys", "MLHF_SESSION_SECRET": "s" * 40}


def open_page(browser: Any, viewport: dict[str, int], wrong: list[str]) -> Any:
    context = browser.new_context(viewport=viewport, accept_downloads=True)
    context.set_default_timeout(1000 * DEADLINE)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    return page


def picture(page: Any, name: str) -> None:
    """Keep a picture where the docs want one; nothing may be wider than the screen."""
    over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert over <= 0, f"{name} is {over} px too wide"
    if folder := os.environ.get("MLHF_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", caret="initial")


def log_in(page: Any, url: str, key: str) -> None:
    page.goto(f"{url}/")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


@pytest.mark.long
def test_a_new_user_and_a_team(serving: Serving, browser: Any, tmp_path: Path) -> None:
    serving.start("serve", "--workers", "1")
    serving.wait_until_ready()
    command = [sys.executable, "-P", "-m", "mlhf_service.cli.main", "keys", "create"]
    more = ["--name", "first", "--scope", "admin", "--data-dir", str(serving.data_dir)]
    made = subprocess.run([*command, *more], check=True, capture_output=True, text=True)
    url, wrong = serving.client.url, []
    admin = open_page(browser, DESKTOP, wrong)
    log_in(admin, url, made.stdout.split()[-1])
    from_csv_to_comparison(admin, tmp_path)
    key = key_for_a_member(admin)
    a_member(browser, url, key, wrong, tmp_path)
    assert wrong == []


def from_csv_to_comparison(page: Any, folder: Path) -> None:
    """By the pages alone: a CSV file, two optimizers, their comparison."""
    (folder / "flowers.csv").write_text(FLOWERS)
    page.get_by_role("link", name="Data sets").click()
    page.wait_for_url("**/datasets")
    page.wait_for_load_state()
    page.get_by_label("Files").set_input_files(folder / "flowers.csv")
    assert page.get_by_label("Name").input_value() == "flowers"
    page.get_by_label("Column to predict").fill("species")
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("heading", name="What was understood").wait_for()
    picture(page, "dataset")
    page.get_by_role("link", name="Compare optimizers on it").click()
    page.locator("#verdict", has_text="Valid").wait_for()
    page.get_by_label("epochs", exact=True).fill("4")
    page.get_by_role("button", name="Remove").first.click()
    page.locator("#verdict", has_text="4 runs").wait_for()
    picture(page, "new-job")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile("/jobs/job_"))
    page.locator(".status.succeeded").nth(4).wait_for()  # the job and its four runs
    page.get_by_role("link", name=re.compile("ompare")).first.click()
    page.locator("#by-seconds canvas").wait_for()
    table = page.locator("#table")
    for name in ("adam", "hf_adam"):
        table.get_by_text(name, exact=False).first.wait_for()
    picture(page, "compare")


def key_for_a_member(page: Any) -> str:
    page.get_by_role("link", name="Keys").click()
    page.wait_for_url("**/keys")
    page.wait_for_load_state()
    page.get_by_label("Name").fill("a member of the team")
    page.get_by_role("button", name="Make").click()
    page.locator("#secret").get_by_text("mlhf_").wait_for()
    return str(page.locator("#secret").inner_text())


def a_member(browser: Any, url: str, key: str, wrong: list[str], folder: Path) -> None:
    """On a phone: put runs into a shared project, filter, compare, download."""
    page = open_page(browser, PHONE, wrong)
    log_in(page, url, key)
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_label("Choose all that are shown").check()
    page.get_by_text("With those chosen").click()
    page.locator("#choose input[name=project]").fill("flowers of the team")
    page.get_by_role("button", name="Move", exact=True).click()
    page.get_by_label("Project").first.select_option("flowers of the team")
    page.get_by_label("Filter").fill("optimizer = adam")
    page.get_by_label("Filter").press("Enter")
    page.get_by_text("2 runs").wait_for()
    page.wait_for_url(re.compile("filter=optimizer"))
    picture(page, "runs-phone")
    for box in page.locator("input[name=run][type=checkbox]").all():
        box.check()
    sort_by(page, "test_loss.best")
    page.get_by_role("button", name="Compare (2)").click()
    page.locator("#by-samples canvas").wait_for()
    assert "back=" not in page.url
    with page.expect_download() as told:
        page.get_by_role("link", name="CSV").click()
    told.value.save_as(folder / "comparison.csv")
    assert (folder / "comparison.csv").read_text().count("adam") >= 2
    page.set_viewport_size(DESKTOP)
    page.goto(f"{url}/runs?columns=usual&columns=tags.team&sort=test_loss.best")
    page.get_by_text("4 runs").wait_for()
    picture(page, "runs")


def sort_by(page: Any, column: str) -> None:
    """Click a column's name; once more where the table was replaced under the click."""
    address = page.url
    page.get_by_role("link", name=column).click()
    page.wait_for_timeout(2000)
    if page.url == address and not page.locator("th[aria-sort=ascending]").count():
        page.get_by_role("link", name=column).click()
    page.locator("th[aria-sort=ascending]").wait_for()
