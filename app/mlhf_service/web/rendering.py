"""Templates, and routes whose errors are pages too."""

import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from fastapi.templating import Jinja2Templates
from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.types import Scope

import mlhf
from mlhf.core.errors import error_message
from mlhf_service.kit.problems import Problem, Unavailable, pointer_of
from mlhf_service.runs.metrics import has_best
from mlhf_service.web import formats

_PIECE = 48 * 1024  # characters

log = logging.getLogger(__name__)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= formats.FILTERS
    environment.tests["best_known"] = has_best
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2)
    environment.globals |= {
        "query": formats.query,
        "compared_cell": formats.compared_cell,
        "version": mlhf.__version__,
    }
    return environment


_TEMPLATES = Jinja2Templates(env=_environment())


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Render a template; what it shows changes, so no cache may keep it."""
    headers = {"Cache-Control": "no-store"}
    values |= _always(request)
    return _TEMPLATES.TemplateResponse(request, template, values, status, headers)


def part(template: str, **values: Any) -> str:
    """Render what is part of a page, the same for whoever asks."""
    return _TEMPLATES.get_template(template).render(values)


def streamed_page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page of which a browser shows the beginning while its end is still being made.

    What can go wrong must have gone wrong before: the status is sent first.
    """
    values |= {"request": request, **_always(request)}
    made = _TEMPLATES.get_template(template).generate(values)
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(_pieces(made), status, headers, "text/html; charset=utf-8")


def _pieces(made: Iterable[str]) -> Iterator[str]:
    """The strings that a template yields, a good number at a time."""
    held: list[str] = []
    size = 0
    for part in made:
        held.append(part)
        size += len(part)
        if size >= _PIECE:
            yield "".join(held)
            held.clear()
            size = 0
    yield "".join(held)


def _always(request: Request) -> dict[str, Any]:
    return {
        "caller": getattr(request.state, "caller", None),
        "with_keys": request.app.state.settings.auth == "keys",
    }


class PageRoute(APIRoute):
    """A route whose errors are shown as pages, not as problem documents."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except Problem as problem:
                return _error_page(request, problem.status, problem.title, problem.detail)
            except RequestValidationError as error:
                wrong = (f"{pointer_of(e['loc'])}: {error_message(e)}" for e in error.errors()[:3])
                return _error_page(request, 422, "This address is not valid", "; ".join(wrong))
            except (OperationalError, TimeoutError) as error:
                log.warning("database unavailable: %s", type(error).__name__)
                detail = "The database does not answer. Try again."
                return _error_page(request, Unavailable.status, Unavailable.title, detail)
            except Exception as error:
                log.error("unexpected error", exc_info=error)
                detail = "An unexpected error; it was logged."
                return _error_page(request, 500, "Internal error", detail)

        return handle


def error_page(scope: Scope, status: int, title: str, detail: str) -> Response:
    """An error as a person is shown it, for what answers before a route does."""
    return _error_page(Request(scope), status, title, detail)


def _error_page(request: Request, status: int, title: str, detail: str) -> Response:
    return page(request, "error.html", status, title=title, detail=detail, code=status)
