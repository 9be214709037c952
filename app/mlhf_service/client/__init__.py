"""A client of a running service. It needs httpx, and nothing of the service."""

from mlhf_service.client.async_client import AsyncClient
from mlhf_service.client.client import Client
from mlhf_service.client.errors import ServiceError, WaitTimeoutError
from mlhf_service.client.records import Dataset, Job, Predictions, Record, Run
from mlhf_service.client.tables import Comparison, Curves

__all__ = [
    "AsyncClient",
    "Client",
    "Comparison",
    "Curves",
    "Dataset",
    "Job",
    "Predictions",
    "Record",
    "Run",
    "ServiceError",
    "WaitTimeoutError",
]
