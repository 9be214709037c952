"""What can be asked about runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from mlhf_service.kit.problems import (
    FieldError,
    Invalid,
    NotFound,
    Problem,
)
from mlhf_service.runs import outcomes, repository
from mlhf_service.runs.curves import Series
from mlhf_service.runs.metrics import METRICS, Axis
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.runs.schemas import (
    ArtifactView,
    Position,
    RunItem,
    RunView,
    TargetView,
)
from mlhf_service.storage.folder import FolderStorage


class Gone(Problem):
    status, slug, title = 410, "gone", "No longer available"


def find(session: Session, run_id: str) -> Run:
    run = repository.get(session, run_id)
    if run is None:
        raise NotFound("There is no run of this id.")
    return run


def item(run: Run) -> RunItem:
    """A run as lists show it."""
    return RunItem(**_fields(run))


def view(session: Session, run: Run) -> RunView:
    """A run in full."""
    metrics = repository.metrics_of(session, run.id)
    return RunView(
        **_fields(run),
        config=run.config,
        environment=run.environment,
        data=run.data_info,
        target=_target(session, run, metrics),
        metrics=metrics,
    )


def curves(
    session: Session,
    run_id: str,
    metrics: Sequence[str] | None,
    max_points: int | None,
    x: Axis | None = None,
) -> list[Series]:
    """Curves of a run; all that there are when ``metrics`` is None.

    A metric that can be measured but was not gives an empty series. With ``x``, only points that
    have a place on that axis are given.
    """
    find(session, run_id)
    found = {s.metric: s for s in repository.curves(session, run_id, metrics)}
    wanted = list(found) if metrics is None else list(dict.fromkeys(metrics))
    unknown = [m for m in wanted if m not in METRICS and m not in found]
    if unknown:
        message = f"unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}"
        raise Invalid(message, [FieldError(pointer="metric", detail=message)])
    series = (found.get(m) or Series.of(run_id, m, []) for m in wanted)
    return [(one if x is None else one.on(x)).at_most(max_points) for one in series]


def artifacts(session: Session, run_id: str) -> list[ArtifactView]:
    find(session, run_id)
    return [_artifact(a) for a in repository.artifacts(session, run_id)]


def find_artifact(
    session: Session, storage: FolderStorage, run_id: str, name: str
) -> tuple[Artifact, Path]:
    """Find a file of a run, and its path in the artifact store."""
    artifact = repository.artifact(session, run_id, name)
    if artifact is None:
        raise NotFound("There is no such file, or no such run.")
    path = storage.path(artifact.storage_key)
    if not path.is_file():
        raise Gone("The file is no longer in the artifact store.")
    if path.stat().st_size != artifact.size:
        raise Gone("The file in the artifact store is damaged.")
    return artifact, path


def _fields(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "job_id": run.job_id,
        "position": run.position,
        "name": run.name,
        "status": run.status,
        "model": run.model,
        "dataset": run.dataset,
        "optimizer": run.optimizer,
        "seed": run.seed,
        "attempts": run.attempt,
        "progress": outcomes.progress(run),
        "summary": run.summary,
        "totals": run.totals,
        "diverged_at": outcomes.diverged_at(run),
        "error": run.error,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def _target(session: Session, run: Run, metrics: Sequence[str]) -> TargetView | None:
    target = run.config.get("target")
    if target is None:
        return None
    metric, value = target["metric"], target["value"]
    point = repository.first_reaching(session, run.id, metric, value)
    reached = None
    if point is not None:
        reached = Position(
            step=point.step,
            samples=point.samples,
            epoch=point.epoch,
            wall_seconds=point.wall_seconds,
            cpu_seconds=point.cpu_seconds,
        )
    status = outcomes.target_status(run, reached is not None, metric in metrics)
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
        url=f"/v1/runs/{artifact.run_id}/artifacts/{quote(artifact.name)}",
    )
