"""Tell a person at a terminal what went wrong, in a line that says how to mend it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from mlhf.core.errors import error_message
from mlhf_service.client.client import ServiceError


@contextmanager
def explain() -> Iterator[None]:
    """Turn the errors a user can mend into a message and exit code 1."""
    from mlhf_service.deployment import StartError

    try:
        yield
    except (ServiceError, StartError) as error:
        message = str(error)
    except ValidationError as error:
        parts = [
            f"MLHF_{str(e['loc'][0]).upper()}: {error_message(e)}"
            for e in error.errors()
            if e["loc"]
        ]
        message = "the settings are not valid: " + "; ".join(parts or [str(error)])
    except KeyboardInterrupt:
        message = "interrupted"
    else:
        return
    sys.stderr.write(f"mlhf: {message}\n")
    sys.exit(1)
