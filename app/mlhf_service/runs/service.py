"""What can be asked about runs."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from mlhf_service.database import Database, now
from mlhf_service.kit.problems import (
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    Problem,
)
from mlhf_service.runs import chunks, fields, outcomes, projects, reading, repository, values
from mlhf_service.runs.chunks import Head
from mlhf_service.runs.made_files import MadeFile, made_files, make
from mlhf_service.runs.metrics import METRICS
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.runs.schemas import (
    ArtifactView,
    RunField,
    RunItem,
    RunView,
    TargetView,
)
from mlhf_service.runs.status import HELD_UNTIL, TERMINAL
from mlhf_service.storage.protocol import Storage, Stored

_NO_FILE = "There is no such file, or no such run."


class Gone(Problem):
    status, slug, title = 410, "gone", "No longer available"


def find(session: Session, run_id: str) -> Run:
    run = repository.get(session, run_id)
    if run is None:
        raise NotFound("There is no run of this id.")
    return run


def item(run: Run) -> RunItem:
    """A run as pages show it in a row: its project and its parameters are left out."""
    return RunItem(**_fields(run, {}), project=None)


def items(session: Session, runs: Sequence[Run]) -> list[RunItem]:
    """Runs as lists show them, each with the name of its project."""
    names = projects.names(session, (run.project_id for run in runs))
    return [
        RunItem(**_fields(run), project=names.get(run.project_id or "", projects.DEFAULT))
        for run in runs
    ]


def view(session: Session, run: Run, heads: Sequence[Head] | None = None) -> RunView:
    """A run in full.

    Args:
        heads: Those of its curves' chunks, where they were read before.
    """
    heads = chunks.heads(session, run.id) if heads is None else heads
    named = projects.names(session, [run.project_id])
    return RunView(
        **_fields(run),
        project=named.get(run.project_id or "", projects.DEFAULT),
        config=run.config,
        environment=run.environment,
        data=run.data_info,
        target=_target(session, run, heads),
        metrics=reading.metrics_of(heads),
    )


def list_fields(session: Session) -> list[RunField]:
    """What the caller's runs can be filtered and sorted by."""
    texts = [
        RunField(
            name=name,
            kind="attribute",
            type="number" if name in fields.NUMBERS else "text",
        )
        for name in (*fields.ATTRIBUTES, "project")
    ]
    for name in fields.keys(session):
        number = fields.is_number(session, name)
        texts.append(
            RunField(name=name, kind=fields.kind(name), type="number" if number else "text")
        )
    return texts


def archive(session: Session, run_id: str, hidden: bool) -> Run:
    """Hide an ended run from lists, or show it again."""
    run = find(session, run_id)
    if hidden and run.status not in TERMINAL:
        raise Conflict(f"The run is {run.status}: only an ended run can be archived.")
    run.archived_at = (run.archived_at or now()) if hidden else None
    return run


def metrics(session: Session, run_id: str, wanted: Sequence[str] | None) -> list[str]:
    """The metrics to give of a run: those asked for, or all that were measured.

    One that can be measured but was not gives an empty curve; others are refused.
    """
    measured = reading.metrics_of(chunks.heads(session, find(session, run_id).id))
    if wanted is None:
        return measured
    unknown = [m for m in wanted if m not in METRICS and m not in measured]
    if unknown:
        message = f"unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}"
        raise Invalid(message, [FieldError(pointer="metric", detail=message)])
    return list(dict.fromkeys(wanted))


def artifacts(session: Session, run: Run) -> list[ArtifactView]:
    """The files of a run: those in the store, and those that are made when they are asked for."""
    stored = {a.name: a for a in repository.artifacts(session, run.id)}
    views = [_artifact(a) for a in stored.values()]
    views += [_to_be_made(run, f) for f in made_files(run).values() if f.name not in stored]
    return sorted(views, key=lambda view: (view.kind, view.name))


def find_artifact(database: Database, storage: Storage, run_id: str, name: str) -> Artifact:
    """Find a file of a run that is in the artifact store, as it was put there.

    One that is made of the run's curves is made now if it is not there, or no longer whole.
    """
    with database.read() as session:
        # The run first: files belong to whom it belongs to.
        run = repository.get(session, run_id)
        if run is None:
            raise NotFound(_NO_FILE)
        artifact = repository.artifact(session, run_id, name)
        file = made_files(run).get(name)
    fault = _fault(storage, artifact)
    if artifact is not None and fault is None:
        return artifact
    made = None if file is None else make(database, storage, run, file)
    if made is not None:
        return made
    raise NotFound(_NO_FILE) if fault is None else Gone(fault)


def _fault(storage: Storage, artifact: Artifact | None) -> str | None:
    """What is wrong with a file that should be in the store."""
    if artifact is None:
        return None
    try:
        intact = storage.is_intact(Stored(artifact.storage_key, artifact.size, artifact.sha256))
    except FileNotFoundError:
        return "The file is no longer in the artifact store."
    return None if intact else "The file in the artifact store is damaged: it is not what was put."


def _fields(run: Run, params: values.Flat | None = None) -> dict[str, Any]:
    return {
        "id": run.id,
        "job_id": run.job_id,
        "position": run.position,
        "name": run.name,
        "status": run.status,
        "held": run.available_at == HELD_UNTIL and run.status not in TERMINAL,
        "model": run.model,
        "dataset": run.dataset,
        "dataset_name": run.dataset_name or run.dataset,
        "optimizer": run.optimizer,
        "seed": run.seed,
        "tags": run.tags or {},
        "notes": run.notes,
        "params": values.parameters(run.config) if params is None else params,
        "attempts": run.attempt,
        "progress": outcomes.progress(run),
        "summary": run.summary,
        "totals": run.totals,
        "diverged_at": outcomes.diverged_at(run),
        "error": run.error,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "archived_at": run.archived_at,
    }


def _target(session: Session, run: Run, heads: Sequence[Head]) -> TargetView | None:
    target = run.config.get("target")
    if target is None:
        return None
    metric, value = target["metric"], target["value"]
    reached = reading.first_reaching(session, run.id, metric, value, heads)
    measured = metric in reading.metrics_of(heads)
    status = outcomes.target_status(run, reached is not None, measured)
    return TargetView(metric=metric, value=value, status=status, reached=reached)


def _artifact(artifact: Artifact) -> ArtifactView:
    return ArtifactView(
        name=artifact.name,
        kind=artifact.kind,
        step=artifact.step,
        content_type=artifact.content_type,
        size=artifact.size,
        sha256=artifact.sha256,
        created_at=artifact.created_at,
        url=_url(artifact.run_id, artifact.name),
    )


def _to_be_made(run: Run, file: MadeFile) -> ArtifactView:
    return ArtifactView(
        name=file.name,
        kind=file.kind,
        step=None,
        content_type=file.content_type,
        size=None,
        sha256=None,
        created_at=None,
        url=_url(run.id, file.name),
    )


def _url(run_id: str, name: str) -> str:
    return f"/v1/runs/{run_id}/artifacts/{quote(name)}"
