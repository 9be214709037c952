"""The first key: on a terminal it is shown once, elsewhere only how to make it."""

import io

from mlhf_service.database import Database
from mlhf_service.keys import service
from mlhf_service.keys.first import tell_first_key


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(database: Database, output: io.StringIO) -> str:
    tell_first_key(database, output)
    return output.getvalue()


def test_it_is_shown_on_a_terminal_once(database: Database) -> None:
    shown = told(database, Terminal())
    secret = shown.strip().splitlines()[-1]
    with database.read() as session:
        checked = service.check(session, secret)
    assert checked is not None
    assert checked.caller.may("admin")
    assert told(database, Terminal()) == ""


def test_no_secret_is_written_to_what_may_be_a_log(database: Database) -> None:
    for _ in range(2):
        shown = told(database, io.StringIO())
        assert "mlhf keys create" in shown
        assert "mlhf_" not in shown
    with database.write() as session:
        service.create(session, name="reader", tenant="local", scopes=["read"])
    assert "mlhf keys create" in told(database, io.StringIO())
