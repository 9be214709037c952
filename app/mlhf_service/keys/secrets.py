"""The text of a key: how it is made, recognised and stored.

``mlhf_<lookup>_<secret>``. The lookup finds the row; the secret has 256 bits of chance, so a
plain SHA-256 of it cannot be searched, and nothing slower is needed.
"""

import hashlib
import re
import secrets
import string

_LOOKUP = string.ascii_lowercase + string.digits
_SECRET = string.ascii_letters + string.digits
_LENGTHS = 12, 43
_TOKEN = re.compile(r"mlhf_([a-z0-9]{12})_[A-Za-z0-9]{43}")


def new_token() -> str:
    lookup, secret = (
        "".join(secrets.choice(letters) for _ in range(length))
        for letters, length in zip((_LOOKUP, _SECRET), _LENGTHS, strict=True)
    )
    return f"mlhf_{lookup}_{secret}"


def lookup_of(token: str) -> str | None:
    """The part that finds the row; None for what is not a key of ours."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def digest(token: str) -> str:
    """SHA-256 of a key: all that is stored of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, sha256: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return secrets.compare_digest(digest(token), sha256)
