"""The first key of a new service: without it nobody could make any other."""

from typing import TextIO

from mlhf_service.database import Database, explained
from mlhf_service.keys import repository, service

_COMMAND = "mlhf keys create --name admin --scope admin"


def tell_first_key(database: Database, output: TextIO) -> None:
    """Where there is no key that can make others, make one and show it on a terminal, once.

    What is not a terminal may be kept as a log: there the command is shown, and no secret.
    """
    with explained(database), database.write() as session:
        if repository.is_there_an_admin(session):
            return
        made = service.create_first(session) if output.isatty() else None
    if made is None:
        output.write(f"No key can administer this service yet. Make one: {_COMMAND}\n")
    else:
        output.write(f"The first key, of scope admin. It is not shown again:\n{made.secret}\n")
    output.flush()
