"""All tables, imported once so that the metadata is complete."""

from mlhf_service.audit.models import AuditEntry
from mlhf_service.compatibility import SchemaFloor
from mlhf_service.database import Base
from mlhf_service.datasets.models import Dataset
from mlhf_service.deletions.models import DeletionHold, FileDeletion
from mlhf_service.jobs.idempotency import IdempotencyKey
from mlhf_service.jobs.models import Job, JobEvent, JobTag, QueueTurn
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.keys.logins import Login
from mlhf_service.keys.models import ApiKey, KeySecret
from mlhf_service.keys.rates import RateCount
from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.mirrors.models import MirroredRun
from mlhf_service.networks.models import Network, NetworkCheck
from mlhf_service.retention.models import RetentionRule
from mlhf_service.runs.models import Artifact, CurveChunk, Run
from mlhf_service.runs.projects import Project
from mlhf_service.runs.values import RunValue
from mlhf_service.webhooks.models import Webhook, WebhookDelivery
from mlhf_service.workers.models import Worker

__all__ = [
    "ApiKey",
    "Artifact",
    "AuditEntry",
    "Base",
    "CurveChunk",
    "Dataset",
    "DeletionHold",
    "FileDeletion",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobTag",
    "KeySecret",
    "Login",
    "MetaCheckpoint",
    "MetaCheckpointAlias",
    "MirroredRun",
    "Network",
    "NetworkCheck",
    "Outbox",
    "Project",
    "QueueTurn",
    "RateCount",
    "RetentionRule",
    "Run",
    "RunValue",
    "SchemaFloor",
    "Webhook",
    "WebhookDelivery",
    "Worker",
]
