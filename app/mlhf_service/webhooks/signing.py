"""Secrets, and the signatures made with them (Standard Webhooks)."""

import base64
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook as Signer

_PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def headers(identity: str, body: str, keys: Sequence[str], at: datetime) -> dict[str, str]:
    """The headers of one attempt: a signature with each key, of the id, the time and the body."""
    at = at.astimezone(UTC)
    signatures = [Signer(key).sign(identity, at, body) for key in keys]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
