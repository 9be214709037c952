"""All tables, imported once so that the metadata is complete."""

from mlhf_service.database import Base
from mlhf_service.datasets.models import Dataset
from mlhf_service.jobs.idempotency import IdempotencyKey
from mlhf_service.jobs.models import Job, JobEvent, JobTag
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.runs.models import Artifact, Point, Run

__all__ = [
    "Artifact",
    "Base",
    "Dataset",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobTag",
    "MetaCheckpoint",
    "MetaCheckpointAlias",
    "Outbox",
    "Point",
    "Run",
]
