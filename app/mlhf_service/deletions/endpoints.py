"""HTTP for deleting: one thing by its address, or many at once."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, status

from mlhf_service.api.dependencies import Backend, CurrentBackend
from mlhf_service.datasets.endpoints import DatasetId
from mlhf_service.deletions import bulk, files, service
from mlhf_service.deletions.dependants import InUseDocument
from mlhf_service.deletions.schemas import DeletionReport, DeletionRequest
from mlhf_service.jobs.endpoints import JobId
from mlhf_service.kit.problems import ProblemDocument
from mlhf_service.runs.endpoints import ArtifactName, RunId

router = APIRouter(tags=["deletions"])

NetworkId = Annotated[
    str, Path(pattern=r"^net_[0-9a-z]{1,36}$", description="Id of a network, `net_…`.")
]
MetaCheckpointId = Annotated[
    str, Path(pattern=r"^mc_[0-9a-z_]{1,36}$", description="Id of a meta-checkpoint, `mc_…`.")
]
Force = Annotated[bool, Query(description="Delete it though ended things depend on it: they stay.")]
Cancel = Annotated[bool, Query(description="Delete it though it has not ended: it is stopped.")]
_REFUSED: dict[int | str, dict[str, Any]] = {
    409: {
        "description": "Others depend on it: they are named.",
        "model": InUseDocument | ProblemDocument,
    }
}


async def _options(force: Force = False, cancel: Cancel = False) -> service.Options:
    return service.Options(force=force, cancel=cancel)


Options = Annotated[service.Options, Depends(_options)]


def delete_now(
    backend: Backend, delete: service.Delete, identity: str, options: service.Options
) -> None:
    """One transaction, then the files."""
    with backend.write() as context:
        delete(context, identity, options)
    files.drain_soon(backend.database, backend.storage)


@router.delete("/jobs/{job_id}", status_code=status.HTTP_204_NO_CONTENT, responses=_REFUSED)
def delete_job(job_id: JobId, backend: CurrentBackend, options: Options) -> None:
    """Delete a job with its runs, their curves and their files.

    Refused while it has not ended, and where meta-checkpoints came of it.
    """
    delete_now(backend, service.delete_job, job_id, options)


@router.delete("/runs/{run_id}", status_code=status.HTTP_204_NO_CONTENT, responses=_REFUSED)
def delete_run(run_id: RunId, backend: CurrentBackend, options: Options) -> None:
    """Delete one run of a job of several, with its curve and its files."""
    delete_now(backend, service.delete_run, run_id, options)


@router.delete(
    "/runs/{run_id}/artifacts/{name:path}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=_REFUSED,
)
def delete_artifact(run_id: RunId, name: ArtifactName, backend: CurrentBackend) -> None:
    """Delete one file of a run that has ended, such as a checkpoint."""
    with backend.write() as context:
        service.delete_artifact(context, run_id, name, service.Options())
    files.drain_soon(backend.database, backend.storage)


@router.delete("/datasets/{dataset_id}", status_code=status.HTTP_204_NO_CONTENT, responses=_REFUSED)
def delete_dataset(dataset_id: DatasetId, backend: CurrentBackend, force: Force = False) -> None:
    """Delete an upload and its files. Refused while runs are to train on it."""
    delete_now(backend, service.delete_dataset, dataset_id, service.Options(force=force))


@router.delete(
    "/meta-checkpoints/{identity}", status_code=status.HTTP_204_NO_CONTENT, responses=_REFUSED
)
def delete_meta_checkpoint(
    identity: MetaCheckpointId, backend: CurrentBackend, force: Force = False
) -> None:
    """Delete a meta-checkpoint. Refused while runs are to use it."""
    delete_now(backend, service.delete_meta_checkpoint, identity, service.Options(force=force))


@router.delete("/networks/{network_id}", status_code=status.HTTP_204_NO_CONTENT, responses=_REFUSED)
def delete_network(network_id: NetworkId, backend: CurrentBackend, force: Force = False) -> None:
    """Delete an uploaded network. Refused while runs are to train it."""
    delete_now(backend, service.delete_network, network_id, service.Options(force=force))


@router.post("/deletions")
def delete_many(request: DeletionRequest, backend: CurrentBackend) -> DeletionReport:
    """Delete many things by their ids, or the jobs that a filter finds.

    A dry run unless told otherwise. What others depend on is kept, and they are named.
    """
    report = bulk.delete_many(backend.write, request)
    if not request.dry_run:
        files.drain_soon(backend.database, backend.storage)
    return report
