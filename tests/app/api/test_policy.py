"""Every route has a decision, and the table decides as the router routes."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI, routing
from starlette.routing import Mount

from mlhf_service.api.policy import DECISIONS, Need, decide


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of every route: API, pages, metrics, documents, static files."""
    if not hasattr(routing, "iter_route_contexts"):
        pytest.skip("this FastAPI has no iter_route_contexts")
    found = set()
    for context in routing.iter_route_contexts(app.router.routes):
        path = context.path
        if isinstance(context.original_route, Mount):
            found |= {(method, f"{path}/{{path:path}}") for method in ("GET", "HEAD")}
        else:
            found |= {(method, path) for method in context.methods or ()}
    return found


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'unused.sqlite3'}"


def test_every_route_has_a_decision(app: FastAPI) -> None:
    undecided = routes(app) - set(DECISIONS)
    assert not undecided, f"add these to api/policy.py: {sorted(undecided)}"


def test_no_decision_is_on_a_route_that_is_gone(app: FastAPI) -> None:
    assert not set(DECISIONS) - routes(app)


def test_the_table_finds_each_route_s_own_decision() -> None:
    for (method, template), need in DECISIONS.items():
        path = re.sub(r"\{[^}]*\}", "some-thing_1", template)
        assert decide(method, path) == (template, need)


def test_what_is_not_in_the_table_has_no_decision() -> None:
    for method, path in (
        ("GET", "/v1/nothing"),
        ("PATCH", "/v1/jobs"),
        ("POST", "/healthz"),
        ("GET", "//v1/jobs"),
        ("GET", "/v1/jobs/"),
        ("GET", "/V1/jobs"),
        ("GET", "/v1/jobs/a/b/c"),
        ("GET", "/v1/jobs\n"),
    ):
        assert decide(method, path) is None, path


def test_only_what_tells_nothing_is_open() -> None:
    opened = {path for (_, path), need in DECISIONS.items() if need is Need.OPEN}
    log_in = {"/login", "/login/oidc", "/login/oidc/callback", "/logout"}
    assert opened == {"/healthz", "/readyz", "/static/{path:path}", *log_in}


def test_what_changes_something_needs_more_than_reading() -> None:
    for (method, path), need in DECISIONS.items():
        if method not in ("GET", "HEAD") and path not in ("/login", "/logout"):
            assert need in (Need.WRITE, Need.ADMIN), path
