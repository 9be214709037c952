"""Errors as RFC 9457 problem documents, raised anywhere below an endpoint."""

import errno
import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from mlhf.core.errors import SpecError
from mlhf.core.explain import telling_field
from mlhf_service.storage.protocol import StorageUnavailable

log = logging.getLogger(__name__)


# What the router's own errors leave out.
_UNSAID = {
    HTTPStatus.NOT_FOUND: "There is nothing at {path}. /docs lists what there is.",
    HTTPStatus.METHOD_NOT_ALLOWED: "{method} cannot be done at {path}; the header Allow lists "
    "what can.",
}


class FieldError(BaseModel):
    """What is wrong with one value of the request."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's name.")
    detail: str


def in_one_line(errors: Sequence[FieldError]) -> str:
    """The first of the errors, each with its place."""
    return "; ".join(f"{error.pointer or 'body'}: {error.detail}" for error in errors[:3])


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    errors: list[FieldError] | None = None


class Problem(Exception):  # noqa: N818 - the standard's own word
    """An error that is reported to the client. Subclasses set its status."""

    status: ClassVar[int] = 400
    slug: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "Bad request"

    def __init__(
        self,
        detail: str,
        errors: list[FieldError] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.headers = headers

    @classmethod
    def at(cls, pointer: str, detail: str) -> "Problem":
        """The problem with one value of the request."""
        return cls(detail, [FieldError(pointer=pointer, detail=detail)])

    @classmethod
    def of(cls, error: SpecError) -> "Problem":
        return cls.at(error.pointer, error.message)

    def document(self) -> dict[str, Any]:
        return document(self.status, self.slug, self.title, self.detail, self.errors)


class BadRequest(Problem):
    pass


class NotFound(Problem):
    status, slug, title = 404, "not-found", "Not found"


class Conflict(Problem):
    status, slug, title = 409, "conflict", "Conflict with the present state"


class TooLarge(Problem):
    status, slug, title = 413, "too-large", "Content too large"


class RangeNotSatisfiable(Problem):
    status, slug, title = 416, "range-not-satisfiable", "Range not satisfiable"


class Invalid(Problem):
    status, slug, title = 422, "invalid", "The request is well-formed but cannot be run"

    @classmethod
    def at(cls, pointer: str, detail: str) -> "Problem":
        """The problem with one value of the request; the sentence names its place in a body."""
        errors = [FieldError(pointer=pointer, detail=detail)]
        return cls(in_one_line(errors) if pointer.startswith("/") else detail, errors)


class InsufficientStorage(Problem):
    status, slug, title = 507, "insufficient-storage", "No room left"


class Unavailable(Problem):
    status, slug, title = 503, "unavailable", "Temporarily unavailable"


def is_full(error: Exception) -> bool:
    """Whether a database says that its disk is full."""
    original = getattr(error, "orig", None)
    full_sqlite = getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return full_sqlite or getattr(original, "sqlstate", None) == "53100"


def document(
    status: int,
    slug: str,
    title: str,
    detail: str | None,
    errors: list[FieldError] | None = None,
) -> dict[str, Any]:
    """A problem document as plain JSON data."""
    return ProblemDocument(
        type=f"/problems/{slug}", title=title, status=status, detail=detail, errors=errors
    ).model_dump(exclude_none=True)


def response(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    # ASCII: a message may quote what UTF-8 cannot encode (a lone surrogate).
    return Response(
        json.dumps(body), body["status"], headers=headers, media_type="application/problem+json"
    )


def pointer_of(location: tuple[int | str, ...], union_tags: Collection[str] = ()) -> str:
    """Turn pydantic's location into a JSON pointer into the body, or a parameter's name.

    Args:
        union_tags: What a tagged union adds to the location; no field is named like one.
    """
    source, *rest = location or ("body",)
    parts = [str(p) for p in rest if p not in union_tags]
    if source != "body":
        return parts[0] if parts else str(source)
    return "".join("/" + p.replace("~", "~0").replace("/", "~1") for p in parts)


def _is_browser(request: Request) -> bool:
    """Whether a person asks for a page."""
    is_api = request.url.path.startswith(("/v1/", "/static/"))
    return not is_api and "text/html" in request.headers.get("accept", "")


def install(
    app: FastAPI,
    union_tags: Callable[[], Collection[str]],
    explain: Callable[[Request, Mapping[str, Any]], str],
    error_page: Callable[[Scope, int, str, str], Response],
) -> None:
    """Make every error of ``app`` a problem document.

    Args:
        union_tags: Gives the tags of all unions in bodies; called when one is wrong.
        explain: Says what one of pydantic's errors about a request is about.
        error_page: What a browser is shown at an address that is none of the API's.
    """

    @app.exception_handler(Problem)
    def _problem(request: Request, error: Problem) -> Response:
        return response(error.document(), error.headers)

    @app.exception_handler(RequestValidationError)
    def _validation(request: Request, error: RequestValidationError) -> Response:
        errors = []
        for item in error.errors():
            if item["type"] == "json_invalid":
                return response(
                    document(400, "bad-request", "Bad request", "The body is not valid JSON.")
                )
            pointer = pointer_of(item["loc"], union_tags()) + telling_field(item)
            errors.append(FieldError(pointer=pointer, detail=explain(request, item)))
        title = "The request is not valid"
        return response(document(422, Invalid.slug, title, in_one_line(errors), errors))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        if status == HTTPStatus.NOT_FOUND and _is_browser(request):
            return error_page(request.scope, 404, "Not found", "There is no page of this address.")
        slug = status.phrase.lower().replace(" ", "-")
        detail = str(error.detail)
        if detail == status.phrase and status in _UNSAID:
            detail = _UNSAID[status].format(method=request.method, path=request.url.path[:200])
        return response(
            document(status.value, slug, status.phrase, detail),
            dict(error.headers or {}),
        )

    @app.exception_handler(OperationalError)
    @app.exception_handler(TimeoutError)
    def _database(request: Request, error: Exception) -> Response:
        if is_full(error):
            log.error("the database's disk is full")
            full = InsufficientStorage(
                "The disk of the database is full. Make room on it and try again."
            )
            return response(full.document())
        log.warning("database unavailable: %s", type(error).__name__)
        problem = Unavailable(
            "The database does not answer. Try again.", None, {"Retry-After": "2"}
        )
        return response(problem.document(), problem.headers)

    @app.exception_handler(StorageUnavailable)
    def _store(request: Request, error: StorageUnavailable) -> Response:
        problem = Unavailable(
            "The store of artifacts does not answer. Try again.", None, {"Retry-After": "5"}
        )
        return response(problem.document(), problem.headers)

    @app.exception_handler(OSError)
    def _disk(request: Request, error: OSError) -> Response:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _internal(request, error)
        log.error("the disk is full")
        problem = InsufficientStorage("The service's disk is full. Free some room and try again.")
        return response(problem.document())

    @app.exception_handler(Exception)
    def _internal(request: Request, error: Exception) -> Response:
        log.error("unexpected error", exc_info=error)
        return response(
            document(500, "internal", "Internal error", "An unexpected error; it was logged.")
        )
