"""Show a person at a terminal what went wrong, in a sentence that says what to do about it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


@contextmanager
def explain() -> Iterator[None]:
    """Turn the errors that a user can do something about into a message and exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        message = "interrupted"
    except Exception as error:
        known = sentence(error)
        if known is None:
            raise  # a fault of ours: its traceback is what a report of it needs
        message = known
    else:
        return
    sys.stderr.write(f"mlhf: {message}\n")
    sys.exit(1)


def sentence(error: Exception) -> str | None:
    """What to show for ``error``, or None where only its traceback can say it."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"the package {error.name} is missing. Install it with: pip install 'mlhf[service]'"
    # Imported here, so that a command that succeeds does not wait for them.
    from pydantic import ValidationError

    from mlhf_service.client import ServiceError
    from mlhf_service.errors import StartError

    if isinstance(error, (ServiceError, StartError)):
        return str(error)
    if isinstance(error, ValidationError) and error.title == "Settings":
        return _settings(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}"
    return None


def _settings(error: "ValidationError") -> str:
    from mlhf.core.errors import error_message
    from mlhf_service.settings import hide_password

    parts = []
    for item in error.errors():
        name = "MLHF_" + str(item["loc"][0]).upper() if item["loc"] else "MLHF_*"
        value = "***" if name.endswith("_SECRET") else hide_password(str(item["input"]))
        parts.append(f"{name} is {value!r}: {error_message(item)}")
    return "the settings are not valid: " + "; ".join(parts)
