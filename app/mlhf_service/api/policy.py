"""The decision on every route: which scope it needs. A route that is not here is refused.

One table, so that who may do what can be read in one place. A test compares it with the
routes that there are.
"""

import re
from enum import StrEnum
from functools import lru_cache

from starlette.routing import compile_path

from mlhf_service.context import ADMIN, METRICS, READ, WRITE


class Need(StrEnum):
    """What a caller needs for a route."""

    OPEN = "open"  # no key: it tells nothing of what is stored
    READ = READ
    WRITE = WRITE
    ADMIN = ADMIN
    METRICS = METRICS


_TABLE = """
read    GET     /v1/jobs
write   POST    /v1/jobs
read    GET     /v1/jobs/{job_id}
write   POST    /v1/jobs/{job_id}/cancel
write   POST    /v1/jobs/{job_id}/pause
write   POST    /v1/jobs/{job_id}/resume
write   POST    /v1/jobs/{job_id}/retry
write   POST    /v1/jobs/{job_id}/clone
write   POST    /v1/jobs/{job_id}/archive
write   POST    /v1/jobs/{job_id}/unarchive
write   PATCH   /v1/jobs/{job_id}
write   DELETE  /v1/jobs/{job_id}
read    GET     /v1/jobs/{job_id}/events
read    GET     /v1/jobs/{job_id}/logs

read    GET     /v1/runs
read    GET     /v1/runs/fields
read    GET     /v1/runs/{run_id}
read    GET     /v1/runs/{run_id}/curves
read    GET     /v1/runs/{run_id}/artifacts
read    GET     /v1/runs/{run_id}/artifacts/{name:path}
read    HEAD    /v1/runs/{run_id}/artifacts/{name:path}
write   POST    /v1/runs/{run_id}/archive
write   POST    /v1/runs/{run_id}/unarchive
write   PATCH   /v1/runs/{run_id}
write   DELETE  /v1/runs/{run_id}
write   POST    /v1/runs
write   POST    /v1/runs/{run_id}/points
write   POST    /v1/runs/{run_id}/finish
write   DELETE  /v1/runs/{run_id}/artifacts/{name:path}
write   POST    /v1/edits
write   POST    /v1/deletions
write   POST    /v1/imports
read    GET     /v1/reports
write   POST    /v1/models/{run_id}/predict
write   POST    /v1/models/{run_id}/predict-file
write   POST    /v1/models/{run_id}/export

read    GET     /v1/projects
write   POST    /v1/projects
read    GET     /v1/projects/{project_id}
write   PATCH   /v1/projects/{project_id}
write   DELETE  /v1/projects/{project_id}

read    GET     /v1/comparisons
read    GET     /v1/ablations

read    GET     /v1/datasets
write   POST    /v1/datasets
read    GET     /v1/datasets/progress/{progress_id}
read    GET     /v1/datasets/{dataset_id}
write   DELETE  /v1/datasets/{dataset_id}

read    GET     /v1/meta-checkpoints
write   POST    /v1/meta-checkpoints
read    GET     /v1/meta-checkpoints/{identity}
read    GET     /v1/meta-checkpoints/{identity}/file
write   DELETE  /v1/meta-checkpoints/{identity}
write   PUT     /v1/meta-checkpoints/aliases/{optimizer}/{alias}
write   DELETE  /v1/meta-checkpoints/aliases/{optimizer}/{alias}

read    GET     /v1/networks
write   POST    /v1/networks
read    GET     /v1/networks/{network_id}
read    GET     /v1/networks/{network_id}/graph
write   DELETE  /v1/networks/{network_id}

read    GET     /v1/retention
write   POST    /v1/retention
write   POST    /v1/retention/preview
read    GET     /v1/retention/{rule_id}
write   PATCH   /v1/retention/{rule_id}
write   DELETE  /v1/retention/{rule_id}
write   POST    /v1/retention/{rule_id}/run

read    GET     /v1/workers
read    GET     /v1/queue

read    GET     /v1/webhooks
write   POST    /v1/webhooks
read    GET     /v1/webhooks/{webhook_id}
write   PATCH   /v1/webhooks/{webhook_id}
write   DELETE  /v1/webhooks/{webhook_id}
write   POST    /v1/webhooks/{webhook_id}/rotate
write   POST    /v1/webhooks/{webhook_id}/test
read    GET     /v1/webhooks/{webhook_id}/deliveries
write   POST    /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/retry

read    GET     /v1/limits
read    GET     /v1/models
read    GET     /v1/models/{name}
read    GET     /v1/optimizers
read    GET     /v1/optimizers/{name}
read    GET     /v1/losses
read    GET     /v1/losses/{name}
read    GET     /v1/dataset-formats
read    GET     /v1/dataset-formats/{name}

read    GET     /v1/me
admin   GET     /v1/keys
admin   POST    /v1/keys
admin   GET     /v1/keys/{key_id}
admin   POST    /v1/keys/{key_id}/rotate
admin   DELETE  /v1/keys/{key_id}
admin   GET     /v1/logins
admin   DELETE  /v1/logins/{login_id}
admin   GET     /v1/audit

open    GET     /healthz
open    GET     /readyz
metrics GET     /metrics

read    GET     /
read    GET     /docs
read    GET     /openapi.json
read    HEAD    /openapi.json
read    GET     /jobs
read    GET     /runs
write   POST    /runs
read    GET     /jobs/{job_id}
read    GET     /runs/{run_id}
read    GET     /datasets
read    GET     /datasets/{dataset_id}
read    GET     /models
read    GET     /models/{name}
read    GET     /optimizers
read    GET     /optimizers/{name}
read    GET     /meta-checkpoints
read    GET     /meta-checkpoints/{identity}
read    GET     /compare
read    GET     /new
write   POST    /new
read    GET     /workers
read    GET     /delete/{identity}
write   POST    /delete/{identity}
write   POST    /archive/{identity}
admin   GET     /keys
open    GET     /login
open    POST    /login
open    POST    /logout
open    GET     /login/oidc
open    GET     /login/oidc/callback
open    GET     /static/{path:path}
open    HEAD    /static/{path:path}
"""

DECISIONS: dict[tuple[str, str], Need] = {
    (method, path): Need(need)
    for need, method, path in (line.split() for line in _TABLE.split("\n") if line)
}


def _patterns() -> dict[str, list[tuple[re.Pattern[str], str, Need]]]:
    """By method; where two fit a path, that with fewer parameters comes first."""
    found: dict[str, list[tuple[re.Pattern[str], str, Need]]] = {}
    for (method, path), need in sorted(DECISIONS.items(), key=lambda item: item[0][1].count("{")):
        found.setdefault(method, []).append((compile_path(path)[0], path, need))
    return found


_PATTERNS = _patterns()


def decide(method: str, path: str) -> tuple[str, Need] | None:
    """The route that a request is for, and its decision; None where there is none."""
    for pattern, template, need in _PATTERNS.get(method, ()):
        if pattern.fullmatch(path):
            return template, need
    return None


@lru_cache(maxsize=1024)
def methods_of(path: str) -> frozenset[str]:
    """The methods for which there is a route of this path."""
    return frozenset(method for method in _PATTERNS if decide(method, path) is not None)
