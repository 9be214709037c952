"""A client of a running service. It needs httpx and httpx-sse, and nothing of the service."""

from mlhf_service.client.client import Client, ServiceError

__all__ = ["Client", "ServiceError"]
