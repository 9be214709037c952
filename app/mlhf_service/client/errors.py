"""What goes wrong between a client and the service."""

from typing import Any

import httpx

Json = dict[str, Any]
UNAUTHORIZED = 401


class ServiceError(Exception):
    """The service refused a request, or did not answer. The message says why, and where.

    Attributes:
        status: The HTTP status; None where there was no answer.
        type: The kind of problem, such as ``/problems/invalid``; None likewise.
        title: The problem's title.
        detail: What the service said of it.
        errors: One ``{"pointer", "detail"}`` for each wrong value of the request.
    """

    def __init__(
        self, message: str, status: int | None = None, problem: Json | None = None
    ) -> None:
        super().__init__(message)
        problem = problem or {}
        self.status = status
        self.type: str | None = problem.get("type")
        self.title: str | None = problem.get("title")
        self.detail: str | None = problem.get("detail")
        self.errors: list[Json] = problem.get("errors") or []

    @property
    def pointers(self) -> list[str]:
        """JSON pointers to the wrong values of the request, such as ``/model/params/hidden/0``."""
        return [error["pointer"] for error in self.errors if error.get("pointer")]


class WaitTimeoutError(ServiceError, TimeoutError):
    """Something did not come about in time; the message names it."""


def refusal(response: httpx.Response) -> ServiceError:
    """The error that a problem document (RFC 9457) says; of any other answer its status."""
    reason = f"{response.status_code} {response.reason_phrase}"
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return ServiceError(reason, response.status_code)
    text = str(body.get("detail") or body.get("title") or response.reason_phrase)
    pointers = [e["pointer"] for e in body.get("errors") or [] if e.get("pointer")]
    pointers = [pointer for pointer in pointers if pointer not in text]
    where = f" (at {', '.join(pointers)})" if pointers else ""
    is_unknown = response.status_code == UNAUTHORIZED
    hint = ". Give a key by MLHF_KEY or --key" if is_unknown else ""
    return ServiceError(f"{text}{where}{hint}", response.status_code, body)
