"""The page of all runs as a table: any hyperparameter, metric or tag a column.

Its address holds the filter, the order and the columns, so that a bookmark is a saved view.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from mlhf_service.api.dependencies import CurrentBackend, ReadSession
from mlhf_service.comparisons.service import MOST_RUNS
from mlhf_service.deletions import bulk, files
from mlhf_service.deletions.schemas import DeletionRequest
from mlhf_service.jobs import edits
from mlhf_service.jobs import projects as job_projects
from mlhf_service.kit.pagination import Cursor
from mlhf_service.kit.problems import BadRequest, Invalid
from mlhf_service.runs import fields, projects, repository, run_table, search, values
from mlhf_service.runs import service as runs
from mlhf_service.runs.models import Run
from mlhf_service.runs.query import MAX_LENGTH
from mlhf_service.runs.status import ACTIVE, STATUSES, Status
from mlhf_service.web.formats import NONE, number, query, when
from mlhf_service.web.rendering import PageRoute, page, streamed_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)

MOST_COUNTED = 10_000
_SIZES = (100, 1000)
_FIRST = ("status", "optimizer", "model", "dataset")
_LAST = ("train_loss", "test_loss.best", "test_accuracy", "seconds", "created_at")
_MOST_DIFFERING = 4
_STATUS: dict[str, Markup] = {
    s: Markup('<span class="status {0}">{0}</span>').format(s) for s in STATUSES
}
_USUAL = "usual"  # in place of a field: the columns of one who chose none
_SECTIONS = {
    "attribute": "Of the run",
    "param": "Hyperparameters",
    "metric": "Metrics",
    "total": "Effort",
    "tag": "Tags",
}
_TEXT = r"^[^\x00]*$"
_Text = Annotated[str, Query(max_length=200, pattern=_TEXT)]
_Id = Annotated[str, Form(pattern=r"^run_[0-9a-z]{1,36}$")]
Action = Literal["tag", "untag", "archive", "unarchive", "move", "delete"]


@dataclass(frozen=True)
class Head:
    """A column: its field, and where a click on it leads."""

    field: str
    address: str
    order: Literal["ascending", "descending", "none"]
    numeric: bool


@dataclass(frozen=True)
class Row:
    """A run, and what stands in its cells."""

    run: Run
    cells: Sequence[str | Markup]


@router.get("/runs")
def runs_page(
    request: Request,
    session: ReadSession,
    filter: Annotated[str, Query(max_length=MAX_LENGTH, pattern=_TEXT)] = "",
    q: _Text = "",
    project: _Text = "",
    status: Status | Literal[""] = "",
    archived: Literal["", "true"] = "",
    sort: _Text = "-created_at",
    columns: Annotated[list[_Text] | None, Query(max_length=60)] = None,
    limit: Literal["100", "1000"] = "100",
    cursor: Cursor = None,
) -> Response:
    """Runs as a table, by any filter and in any order."""
    chosen = {
        "filter": filter,
        "q": q,
        "project": project,
        "status": status,
        "archived": archived,
        "sort": "" if sort == "-created_at" else sort,
        "columns": None if columns == [_USUAL] else columns,
        "limit": "" if limit == "100" else limit,
    }
    found: list[Run] = []
    heads: list[Head] = []
    following, count, wrong = None, 0, None
    try:
        statement = _statement(session, filter, q, project, status, archived)
        ids, following = search.page(session, statement, sort, int(limit), cursor)
        found = repository.get_many(session, ids)
        names = _columns(session, columns or [_USUAL], found)
        heads = [_head(name, sort, chosen, found) for name in names]
        count = _count(session, statement)
    except (Invalid, BadRequest) as problem:
        wrong = problem.detail
    names_of_projects = projects.names(session, (run.project_id for run in found))
    return streamed_page(
        request,
        "runs.html",
        status=422 if wrong else 200,
        shown=len(found),
        rows=_rows(found, [head.field for head in heads], names_of_projects),
        heads=heads,
        numeric=[head.numeric for head in heads],
        chosen=chosen,
        sort=sort,
        wrong=wrong,
        count=count,
        most_counted=MOST_COUNTED,
        older=query(**chosen, cursor=following) if following else None,
        newest=query(**chosen) if cursor else None,
        csv=query(**{**chosen, "limit": "", "archived": archived or "false"}, format="csv"),
        back=query(**chosen, cursor=cursor),
        usual=columns is None or _USUAL in columns,
        sections=_sections(session, set(columns or ())),
        projects=[projects.DEFAULT, *session.scalars(select(projects.Project.name).limit(200))],
        statuses=STATUSES,
        sizes=_SIZES,
        filtered=any((filter, q, project, status, archived)),
        most=MOST_RUNS,
        active=any(run.status in ACTIVE for run in found),
    )


@router.post("/runs")
def change_runs(
    request: Request,
    backend: CurrentBackend,
    do: Annotated[Action, Form()],
    run: Annotated[list[_Id] | None, Form()] = None,
    tag: Annotated[str, Form(max_length=330, pattern=_TEXT)] = "",
    project: Annotated[str, Form(max_length=200, pattern=_TEXT)] = "",
    back: Annotated[str, Form(max_length=8000, pattern=_TEXT)] = "",
    sure: Annotated[bool, Form()] = False,
) -> Response:
    """Tag, archive, move or delete what was chosen; all or none, but for deletions.

    A run is in the project of its job, so the jobs are moved.
    """
    if not run:
        raise BadRequest("No run was chosen: tick those that are meant.")
    if len(run) > edits.MOST:
        raise BadRequest(
            f"{len(run)} runs were chosen: at most {edits.MOST} can be changed at once."
        )
    if do == "delete":
        wanted = DeletionRequest(ids=run, dry_run=not sure)
        report = bulk.delete_many(backend.write, wanted)
        if not sure or report.kept:
            return page(request, "delete_runs.html", report=report, back=_query(back), sure=sure)
        files.drain_soon(backend.database, backend.storage)
    elif do == "move":
        with backend.write() as context:
            _move(context.session, run, project.strip())
    else:
        changes: dict[str, Any] = {"archived": do == "archive"}
        if do in ("tag", "untag"):
            changes = {"tags": _tag(tag, remove=do == "untag")}
        with backend.write() as context:
            edits.edit_many(
                context.session, edits.EditRequest(ids=run, changes=edits.JobPatch(**changes))
            )
    return RedirectResponse(f"/runs?{_query(back)}", 303)


def _move(session: Session, run_ids: Sequence[str], project: str) -> None:
    """Move the jobs of some runs to a project, which is made if there is none of its name."""
    try:
        changes = edits.JobPatch(project=project)
    except ValueError:
        raise BadRequest(f"{project!r} is no name of a project.") from None
    job_projects.made_if_absent(session, project)
    jobs = dict.fromkeys(run.job_id for run in repository.get_many(session, run_ids))
    if jobs:
        edits.edit_many(session, edits.EditRequest(ids=list(jobs), changes=changes))


def _query(back: str) -> str:
    """The page's own query, and nothing that leads elsewhere."""
    return urlencode(parse_qsl(back))


def _tag(text: str, remove: bool) -> dict[str, str | None]:
    key, _, value = text.strip().partition(":")
    try:
        edits.JobPatch(tags={key: value})
    except ValueError:
        raise BadRequest(
            f"{text!r} is no tag: write key or key:value; keys have letters, digits, _ . and -"
        ) from None
    return {key: None if remove else value}


def _statement(
    session: Session, text: str, q: str, project: str, wanted: str, archived: str
) -> Select[Any]:
    statement = repository.search(
        status=[wanted] if wanted else (), q=q or None, archived=bool(archived)
    )
    if project:
        statement = statement.where(search.project_condition(session, [project], "project"))
    if text.strip():
        statement = statement.where(search.condition(session, text))
    return statement


def _count(session: Session, statement: Select[Any]) -> int:
    """How many there are; one more than MOST_COUNTED where there are more."""
    some = statement.with_only_columns(Run.id).limit(MOST_COUNTED + 1)
    return session.scalar(select(func.count()).select_from(some.subquery())) or 0


def _columns(session: Session, wanted: Sequence[str], found: Sequence[Run]) -> list[str]:
    names: dict[str, None] = {}
    for name in wanted:
        chosen = _usual(found) if name == _USUAL else [fields.find(session, name, "columns")]
        names |= dict.fromkeys(chosen)
    return list(names)


def _usual(found: Iterable[Run]) -> list[str]:
    """The columns of one who chose none: also the hyperparameters in which these runs differ."""
    seen: dict[tuple[str, str], set[str]] = {}
    for run in found:
        # Other optimizers have other defaults: that is no choice of these runs.
        of = {"optimizer": run.optimizer, "model": run.model}
        for name, value in values.parameters(run.config).items():
            seen.setdefault((name, of.get(name.partition(".")[0], "")), set()).add(str(value))
    differing = dict.fromkeys(
        name
        for (name, _), of_it in seen.items()
        if len(of_it) > 1 and name.startswith(("optimizer.", "model.", "batch_size", "seed"))
    )
    return [*_FIRST, *list(differing)[:_MOST_DIFFERING], *_LAST]


def _head(name: str, sort: str, chosen: dict[str, Any], found: Sequence[Run]) -> Head:
    ascending, descending = sort == name, sort == f"-{name}"
    address = query(**{**chosen, "sort": f"-{name}" if ascending else name})
    numeric = name not in fields.ATTRIBUTES and name != "project"
    order: Any = "ascending" if ascending else "descending" if descending else "none"
    return Head(name, address, order, numeric)


def _rows(found: Sequence[Run], names: Sequence[str], named: dict[str, str]) -> Iterator[Row]:
    """The rows one by one: the first are sent while the others are made."""
    for run in found:
        known = values.of_run(run)
        yield Row(run, [_cell(run, name, known, named) for name in names])


def _cell(run: Run, name: str, known: dict[str, Any], named: dict[str, str]) -> str | Markup:
    if name == "status":
        return _STATUS[run.status]
    if name in fields.TIMES:
        return when(getattr(run, name))
    value = run_table.cell(run, name, known, named)
    if value is None:
        return NONE
    return number(value) if isinstance(value, float) else str(value)


def _sections(session: Session, shown: set[str]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """What can be chosen as columns, by where it comes from; and whether it is shown."""
    found: dict[str, list[tuple[str, bool]]] = {title: [] for title in _SECTIONS.values()}
    for field in runs.list_fields(session):
        found[_SECTIONS[field.kind]].append((field.name, field.name in shown))
    return [(title, names) for title, names in found.items() if names]
