"""Log-in, the page of keys, and a hostile page, in a real browser."""

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from mlhf_service.database import Database
from mlhf_service.keys import service
from mlhf_service.settings import Settings
from tests.app.web.conftest import Watched


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.auth = "keys"
    return settings


@pytest.fixture
def admin(database: Database) -> str:
    with database.write() as session:
        return service.create(session, name="boss", tenant="a", scopes=["admin"]).secret


@pytest.fixture
def evil(url: str) -> Iterator[str]:
    """A page of another site that sends forms and requests to the service."""
    page = f"""<form id="f" method="post" action="{url}/logout"></form>
    <form id="g" method="post" enctype="text/plain" action="{url}/v1/keys">
    <input name='{{"name":"evil","scopes":["admin"],"x":"' value='"}}'></form>
    <script>fetch("{url}/v1/keys", {{method: "POST", mode: "no-cors", credentials: "include",
    headers: {{"Content-Type": "text/plain"}}, body: '{{"name":"evil"}}'}})
    .finally(() => document.title = "sent")</script>"""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.2:{server.server_port}/"
    server.shutdown()
    server.server_close()


def log_in(page: Any, url: str, key: str) -> None:
    page.goto(f"{url}/datasets")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/datasets")


def test_log_in_make_revoke_and_log_out(watched: Watched, url: str, admin: str) -> None:
    page = watched.page
    log_in(page, url, admin)
    page.get_by_role("link", name="Keys").click()
    page.get_by_label("Name").fill("for ci")
    page.get_by_role("button", name="Make").click()
    page.locator("#secret").get_by_text("mlhf_").wait_for()
    made = page.locator("tr", has_text="for ci")
    made.get_by_text("active").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    made.get_by_role("button", name="Revoke").click()
    made.get_by_text("revoked").wait_for()
    page.reload()
    assert not page.locator("#secret").is_visible()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{url}/login")
    page.goto(f"{url}/keys")
    assert "/login" in page.url
    assert watched.wrong == []


def test_a_button_pressed_before_the_script_has_come_is_not_lost(
    watched: Watched, url: str, admin: str
) -> None:
    page = watched.page
    log_in(page, url, admin)
    held: list[Any] = []
    page.route("**/static/keys.js", lambda route: held.append(route))
    page.goto(f"{url}/keys", wait_until="commit")
    page.get_by_label("Name").fill("in a hurry")
    page.get_by_role("button", name="Make").click()
    page.wait_for_timeout(100)
    assert page.url == f"{url}/keys"
    held[0].continue_()
    page.locator("#secret").get_by_text("mlhf_").wait_for()
    page.locator("tr", has_text="in a hurry").get_by_text("active").wait_for()
    assert watched.wrong == []


def test_a_page_of_another_site_changes_nothing(
    watched: Watched, url: str, admin: str, evil: str, app: FastAPI
) -> None:
    page = watched.page
    log_in(page, url, admin)
    page.goto(evil)
    page.wait_for_function("document.title === 'sent'")
    for form in ("#f", "#g"):
        page.goto(evil)
        with page.expect_navigation() as sent:
            page.evaluate(f"document.querySelector('{form}').submit()")
        assert sent.value.request.method == "POST"
        assert sent.value.status == 403
    page.goto(f"{url}/keys")
    assert page.get_by_role("heading", name="Keys of a").is_visible()  # still logged in
    assert "evil" not in page.content()
