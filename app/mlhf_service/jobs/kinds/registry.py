"""All kinds of jobs.

To add one: write ``jobs/kinds/<kind>.py`` with its request model and its ``JobKind`` (see
``protocol``; what several kinds need is in ``requests``, ``networks`` and ``inputs``), and put an
instance into ``KINDS``. The REST schema, validation, the queue and the pages follow from that.
Where its runs train in a way of their own, the engine's ``mlhf.runner`` needs a function for them
too. Where they measure something new, name it in ``runs.metrics``.
"""

from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from mlhf_service.jobs.kinds.ablation import Ablation
from mlhf_service.jobs.kinds.meta_train import MetaTrain
from mlhf_service.jobs.kinds.protocol import JobKind
from mlhf_service.jobs.kinds.requests import JobRequest
from mlhf_service.jobs.kinds.sweep import Sweep
from mlhf_service.jobs.kinds.train import Train
from mlhf_service.runs.status import LOGGED

KINDS: dict[str, JobKind[Any]] = {
    kind.name: kind for kind in (Train(), Sweep(), MetaTrain(), Ablation())
}

if TYPE_CHECKING:
    Kind = str
    JobCreate = JobRequest
else:
    Kind = Literal[(*KINDS, LOGGED)]
    _requests = reduce(or_, (kind.request for kind in KINDS.values()))
    JobCreate = Annotated[_requests, Field(discriminator="kind")]

_REQUEST: TypeAdapter[JobRequest] = TypeAdapter(JobCreate)
_BY_REQUEST = {kind.request: kind for kind in KINDS.values()}


def kind_of(request: JobRequest) -> JobKind[Any]:
    """The kind that such a request is for."""
    return _BY_REQUEST[type(request)]


def parse(specification: Any) -> JobRequest:
    """The request that a job was made from. Raises pydantic's ValidationError."""
    return _REQUEST.validate_python(specification)


@cache
def request_schema() -> dict[str, Any]:
    """The JSON Schema of all that can be submitted."""
    return _REQUEST.json_schema()


@cache
def union_tags() -> frozenset[str]:
    """The values of all discriminators in requests: pydantic puts them into errors' locations."""
    found: set[str] = set()

    def visit(schema: Any) -> None:
        if isinstance(schema, dict):
            found.update(schema.get("discriminator", {}).get("mapping", {}))
            schema = list(schema.values())
        if isinstance(schema, list):
            for part in schema:
                visit(part)

    visit(request_schema())
    return frozenset(found)
