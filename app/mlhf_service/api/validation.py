"""Requests that are not valid: unknown parameters, and errors in words that say what is allowed."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params

from mlhf.core.explain import explain, unknown
from mlhf_service.api.hosts import route_path
from mlhf_service.api.policy import decide
from mlhf_service.kit.problems import FieldError, Invalid

_NOT_JSON = "the body was not sent as JSON: add the header Content-Type: application/json"


async def known_parameters(request: Request) -> None:
    """Refuse query parameters that the operation does not have: a typo would change nothing."""
    if not request.query_params:
        return
    # Not from the API's document: making that takes a start most of a second.
    parameters = get_flat_params(request.scope["route"].dependant)
    known = [each.alias for each in parameters if isinstance(each.field_info, params.Query)]
    wrong = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if wrong:
        errors = [FieldError(pointer=n, detail=unknown("query parameter", n, known)) for n in wrong]
        raise Invalid("; ".join(error.detail for error in errors), errors)


def explain_request(request: Request, error: Mapping[str, Any]) -> str:
    """Say what is wrong with a value of a request, from the description of the operation."""
    loc = error["loc"]
    if loc[:1] != ("body",):
        return explain(error, {})
    kind = request.headers.get("content-type", "")
    if len(loc) == 1 and isinstance(error.get("input"), str | bytes) and "json" not in kind:
        return _NOT_JSON
    content: dict[str, Any] = _operation(request).get("requestBody", {}).get("content", {})
    schema: dict[str, Any] = {}
    for described in content.values():
        schema = described.get("schema", schema)
    return explain({**error, "loc": loc[1:]}, schema, request.app.openapi())


def _operation(request: Request) -> dict[str, Any]:
    """The request's operation in the API's own document."""
    decided = decide(request.method, route_path(request.scope))
    path = decided[0].replace(":path}", "}") if decided else ""
    found: dict[str, Any] = request.app.openapi()["paths"].get(path, {})
    return dict(found.get(request.method.lower(), {}))
