"""Links of the OpenAPI document: what an answer names, and which requests take it.

A client generator, or a test that follows states, learns by them that the ``id`` of a new job is
the ``job_id`` of other paths.
"""

from typing import Any

_ID, _FIRST = "$response.body#/id", "$response.body#/data/0/id"
_JOBS, _RUNS = "/v1/jobs/{job_id}", "/v1/runs/{run_id}"
_RUN_OF_JOB = "$response.body#/run_ids/0"

# From an operation and its status: to which operations, with which values.
_LINKS: list[tuple[str, str, list[str], dict[str, str]]] = [
    (
        "POST /v1/jobs",
        "201",
        [
            f"GET {_JOBS}",
            f"GET {_JOBS}/events",
            f"GET {_JOBS}/logs",
            f"POST {_JOBS}/cancel",
            f"POST {_JOBS}/pause",
            f"POST {_JOBS}/clone",
            f"DELETE {_JOBS}",
        ],
        {"job_id": _ID},
    ),
    ("POST /v1/jobs", "201", [f"GET {_RUNS}"], {"run_id": _RUN_OF_JOB}),
    ("GET /v1/jobs", "200", [f"GET {_JOBS}", f"DELETE {_JOBS}"], {"job_id": _FIRST}),
    (f"GET {_JOBS}", "200", [f"GET {_RUNS}"], {"run_id": _RUN_OF_JOB}),
    (
        f"POST {_JOBS}/cancel",
        "200",
        [
            f"POST {_JOBS}/retry",
            f"POST {_JOBS}/archive",
            f"POST {_JOBS}/unarchive",
            f"DELETE {_JOBS}",
        ],
        {"job_id": _ID},
    ),
    (f"POST {_JOBS}/pause", "200", [f"POST {_JOBS}/resume", f"DELETE {_JOBS}"], {"job_id": _ID}),
    (
        f"GET {_RUNS}",
        "200",
        [f"GET {_RUNS}/curves", f"GET {_RUNS}/artifacts", f"DELETE {_RUNS}"],
        {"run_id": _ID},
    ),
    (f"GET {_RUNS}", "200", [f"GET {_JOBS}"], {"job_id": "$response.body#/job_id"}),
    ("GET /v1/runs", "200", [f"GET {_RUNS}", f"GET {_RUNS}/curves"], {"run_id": _FIRST}),
    (
        f"GET {_RUNS}/artifacts",
        "200",
        [f"GET {_RUNS}/artifacts/{{name}}"],
        {"run_id": "$request.path.run_id", "name": "$response.body#/data/0/name"},
    ),
    (
        "POST /v1/datasets",
        "201",
        ["GET /v1/datasets/{dataset_id}", "DELETE /v1/datasets/{dataset_id}"],
        {"dataset_id": _ID},
    ),
    (
        "POST /v1/webhooks",
        "201",
        [
            "GET /v1/webhooks/{webhook_id}",
            "PATCH /v1/webhooks/{webhook_id}",
            "POST /v1/webhooks/{webhook_id}/test",
            "GET /v1/webhooks/{webhook_id}/deliveries",
            "DELETE /v1/webhooks/{webhook_id}",
        ],
        {"webhook_id": _ID},
    ),
    (
        "POST /v1/webhooks/{webhook_id}/test",
        "202",
        ["POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/retry"],
        {"webhook_id": "$request.path.webhook_id", "delivery_id": _ID},
    ),
    (
        "POST /v1/retention",
        "201",
        [
            "GET /v1/retention/{rule_id}",
            "POST /v1/retention/{rule_id}/run",
            "DELETE /v1/retention/{rule_id}",
        ],
        {"rule_id": _ID},
    ),
]


def add_to(document: dict[str, Any]) -> None:
    """Write the links into a document. Raises KeyError for an operation that is not there."""
    for source, status, targets, parameters in _LINKS:
        links = _operation(document, source)["responses"][status].setdefault("links", {})
        for target in targets:
            identity = _operation(document, target)["operationId"]
            links[identity] = {"operationId": identity, "parameters": parameters}


def _operation(document: dict[str, Any], label: str) -> dict[str, Any]:
    method, path = label.split()
    found: dict[str, Any] = document["paths"][path][method.lower()]
    return found
