"""HTTP for workers and the queue."""

from fastapi import APIRouter

from mlhf_service.api.dependencies import ReadContext
from mlhf_service.operations import service
from mlhf_service.operations.schemas import QueueView, WorkerList

router = APIRouter(tags=["operations"])


@router.get("/workers")
def list_workers(context: ReadContext) -> WorkerList:
    """The workers, what they do, and why those that are unfit claim nothing."""
    return WorkerList(data=service.listed(context))


@router.get("/queue")
def get_queue(context: ReadContext) -> QueueView:
    """How many runs wait, by queue and priority, and for how long."""
    return service.queue(context)
