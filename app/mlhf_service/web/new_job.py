"""The page to start a job: a form made from the schemas, beside it the same as JSON and code."""

import json
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from mlhf.core.explain import explain
from mlhf_service.api.dependencies import CurrentBackend, ReadContext
from mlhf_service.api.room import RequireRoom
from mlhf_service.catalogue import service as catalogue
from mlhf_service.context import Context
from mlhf_service.datasets import service as datasets
from mlhf_service.jobs import service as jobs
from mlhf_service.jobs.kinds.registry import KINDS, parse, request_schema
from mlhf_service.jobs.kinds.requests import JobRequest
from mlhf_service.kit.problems import BadRequest, Invalid, Problem
from mlhf_service.web import views
from mlhf_service.web.rendering import PageRoute, page

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_DATASETS = 500
_USUAL_BATCH = 64  # samples; a smaller data set gets two batches
_Id = Annotated[str, Query(max_length=40, pattern=r"^[^\x00]*$")]


@router.get("/new")
def new_page(
    request: Request,
    context: ReadContext,
    dataset: _Id = "",
    origin: Annotated[_Id, Query(alias="from")] = "",
) -> Response:
    """A new job: the first comparison, on a data set of choice, or a copy of ``from`` to change."""
    if origin:
        job = jobs.find(context.session, origin)
        body = {**job.spec, "name": f"{job.name} (copy)"[:200]}
    else:
        body = dict(views.FIRST_JOB)
        if dataset:
            found = datasets.find(context, dataset)
            called = datasets.called(context, found)
            body |= {"name": f"comparison on {found.name}"[:200], "dataset": {"name": called}}
            body.pop("target")
            if found.info and found.info.train_samples < _USUAL_BATCH:
                body["batch_size"] = max(1, found.info.train_samples // 2)
    return _page(request, context, json.dumps(body, indent=2), origin)


@router.post("/new", dependencies=[RequireRoom])
def start(
    request: Request,
    backend: CurrentBackend,
    spec: Annotated[str, Form(max_length=1_000_000)],
    origin: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """Start what was written, where no script does; or show it again and say what is wrong."""
    try:
        asked = _parsed(spec)
        with backend.write() as context:
            made = jobs.create(context, asked)
    except Problem as problem:
        wrong = [f"{one.pointer}: {one.detail}" for one in getattr(problem, "errors", None) or []]
        with backend.read() as context:
            text = "; ".join(wrong) or problem.detail or problem.title
            return _page(request, context, spec, origin, text, problem.status)
    return RedirectResponse(f"/jobs/{made.id}", 303)


def _parsed(text: str) -> JobRequest:
    try:
        return parse(json.loads(text))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise BadRequest(f"This is not JSON: {error}") from None
        first = error.errors()[0]
        where = "/".join(map(str, first["loc"]))
        raise Invalid(f"{where}: {explain(first, request_schema())}", []) from None


def _page(
    request: Request,
    context: Context,
    text: str,
    origin: str,
    wrong: str = "",
    status: int = 200,
) -> Response:
    return page(
        request,
        "new.html",
        status,
        text=text,
        origin=origin,
        wrong=wrong,
        described=_described(context),
    )


def _described(context: Context) -> dict[str, Any]:
    """What the form is made from: the requests of each kind, and what they can name."""
    names = {
        f"{kind}": [
            {"name": one.name, "about": one.description, "schema": one.params_schema}
            for one in catalogue.entries(kind)
        ]
        for kind in ("model", "loss", "optimizer")
    }
    listed = datasets.page(context, _DATASETS, None).data
    taken = Counter(one.name for one in listed)
    names["dataset"] = [
        {
            "name": one.id,
            "called": one.name if taken[one.name] == 1 else one.id,
            "about": one.description,
            "schema": one.params_schema,
        }
        for one in listed
        if one.available
    ]
    return {
        "kinds": {name: kind.request.model_json_schema() for name, kind in KINDS.items()},
        "names": names,
    }
