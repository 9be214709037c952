"""The migrations make exactly the tables of the code, on both databases."""

from app.database import Database
from app.migrate import differences, migrate


def test_migrated_databases_match_the_code(database: Database) -> None:
    with database.engine.connect() as connection:
        assert differences(connection) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database)
    with database.engine.connect() as connection:
        assert differences(connection) == []
