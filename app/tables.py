"""All tables, imported once so that the metadata is complete."""

from app.database import Base
from app.datasets.models import Dataset
from app.jobs.models import IdempotencyKey, Job, JobEvent, JobTag, Outbox
from app.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from app.runs.models import Artifact, Point, Run

__all__ = [
    "Artifact", "Base", "Dataset", "IdempotencyKey", "Job", "JobEvent", "JobTag", "MetaCheckpoint",
    "MetaCheckpointAlias", "Outbox",
    "Point", "Run",
]  # fmt: skip
