"""Credentials of S3 from the shared file, which the client library does not read itself."""

import configparser
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import S3Credential

_READ_AGAIN = timedelta(minutes=5)  # so that keys can be replaced while we run


def shared_credentials() -> "Callable[[], S3Credential] | None":
    """What reads the file that ``AWS_SHARED_CREDENTIALS_FILE`` names (default: that in ``~``).

    None where the environment holds keys, which come first, or where there is no such file:
    then a role of the machine or pod may give them.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    path = Path(named or "~/.aws/credentials").expanduser()
    if not named and not path.is_file():
        return None
    profile = os.environ.get("AWS_PROFILE", "default")
    return lambda: _read(path, profile)


def _read(path: Path, profile: str) -> "S3Credential":
    parser = configparser.ConfigParser(interpolation=None)
    with path.open(encoding="utf-8") as file:
        parser.read_file(file)
    try:
        section = parser[profile]
        return {
            "access_key_id": section["aws_access_key_id"],
            "secret_access_key": section["aws_secret_access_key"],
            "token": section.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + _READ_AGAIN,
        }
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]} (profile {profile})") from None
