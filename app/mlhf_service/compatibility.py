"""Which versions may work on a database: the newest, and those down to a floor.

During a rolling upgrade older processes go on after the schema was migrated, as long as the
schema still holds all that they use. The oldest revision of which that is true stands in the
database itself, written by each migration, since older code cannot know newer migrations.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from sqlalchemy import Connection, String, delete, insert, inspect, select
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base


class SchemaFloor(Base):
    """One row: the oldest revision whose code may work on this schema."""

    __tablename__ = "schema_floor"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)


class Migration(Protocol):
    """A migration, as Alembic reads its file."""

    @property
    def revision(self) -> str: ...

    @property
    def module(self) -> object: ...


def floor_of(migrations: Iterable[Migration]) -> str:
    """The floor of a schema that these migrations lead to, the oldest first.

    A migration that only expands the schema says ``compatible_with = "NNNN"``: code from that
    revision on may go on. One that says nothing stops all that is older.
    """
    order: list[str] = []
    floor = ""
    for migration in migrations:
        order.append(migration.revision)
        declared = getattr(migration.module, "compatible_with", migration.revision)
        if floor not in order or order.index(declared) > order.index(floor):
            floor = declared
    return floor


def read_floor(connection: Connection) -> str | None:
    """The floor that stands in a database; None in one from before there were any."""
    if not inspect(connection).has_table(SchemaFloor.__tablename__):
        return None
    return connection.scalar(select(SchemaFloor.revision))


def write_floor(connection: Connection, revision: str) -> None:
    if read_floor(connection) != revision:
        connection.execute(delete(SchemaFloor))
        connection.execute(insert(SchemaFloor).values(revision=revision))


def may_work(floor: str | None, known: Sequence[str] | set[str]) -> bool:
    """Whether code that knows these revisions may work on a newer schema with this floor."""
    return floor is not None and floor in known
