"""The OpenAPI document: every error in it is a problem document (RFC 9457), as it is sent."""

from collections.abc import Callable
from threading import Lock
from typing import Any

from fastapi import FastAPI

from mlhf_service.api import examples, links
from mlhf_service.api.vocabulary import WORDS

MEDIA_TYPE = "application/problem+json"
_PROBLEM = {"$ref": "#/components/schemas/ProblemDocument"}
# What every operation may answer with; the schema is that of the error of jobs and runs.
ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document.",
        "content": {
            MEDIA_TYPE: {"schema": _PROBLEM, "examples": examples.named(examples.PROBLEMS)}
        },
    }
}
_DOCUMENT: dict[str, Any] = {}
_LOCK = Lock()  # two first requests at once


def install(app: FastAPI) -> None:
    """Let ``app`` describe its errors as they are sent."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(described)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(described: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """FastAPI's document in our words. All applications have the same routes, hence one."""
    with _LOCK:
        if not _DOCUMENT:
            document = described()
            for operations in document["paths"].values():
                for operation in operations.values():
                    _correct(operation["responses"])
                    _teach(operation)
            for title, schema in document["components"]["schemas"].items():
                if title.startswith("Body_"):
                    _as_form(schema)
                for name, field in schema.get("properties", {}).items():
                    field.setdefault("description", WORDS.get(name, name))
            links.add_to(document)
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
            _DOCUMENT.update(document)
    return _DOCUMENT


def _teach(operation: dict[str, Any]) -> None:
    """Give an operation a name to call it by, examples, and what its parameters mean."""
    name = operation["summary"].lower().replace(" ", "_")
    operation["operationId"] = name
    for parameter in operation.get("parameters", ()):
        parameter.setdefault("description", WORDS.get(parameter["name"], parameter["name"]))
    for response in operation["responses"].values():
        for described in response.get("content", {}).values():
            described.pop("itemSchema", None)  # a word of OpenAPI 3.2; the document is of 3.1
    if name in examples.BODIES:
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = examples.named(examples.BODIES[name])


def _as_form(schema: dict[str, Any]) -> None:
    """Describe a form such that a page shows it: with choosers of files, and names to go by.

    A form cannot send null, so a field that may be null is one that may be left out. `format` is
    OpenAPI 3.0's word for a file, which readers of 3.1 understand, while some of them do not know
    the later `contentMediaType`.
    """
    for name, field in schema["properties"].items():
        match field.pop("anyOf", None):
            case [inner, {"type": "null"}]:
                field.update(inner)
            case [*several]:
                field["anyOf"] = several
        for node in (field, field.get("items", {})):
            if "contentMediaType" in node:
                node["format"] = "binary"
        if name in examples.FORMS:
            field["example"] = examples.FORMS[name]


def _correct(responses: dict[str, Any]) -> None:
    """FastAPI describes its own form of a 422, and every model as plain JSON."""
    for status, response in responses.items():
        content = response.get("content", {})
        if status[0] not in "45" or "application/json" not in content:
            continue
        described = content.pop("application/json")
        if described.get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
            described, response["description"] = {"schema": _PROBLEM}, "The request is not valid."
        content[MEDIA_TYPE] = described
